//! One run: chaos, calm, verdict.

use std::collections::{BTreeMap, BTreeSet};

use millrace_ledger::Metadata;

use crate::bulker;
use crate::control::Control;
use crate::executor::Task;
use crate::gateway;
use crate::oracle::{self, Violation};
use crate::pods::Gateway;
use crate::random::Random;
use crate::record::{ALL_PARTITIONS, Incoming, LOGS, PARTITIONS};
use crate::rotor;
use crate::server::{Memory, Server};
use crate::stats::Stats;
use crate::warehouse;
use crate::world::{Group, SESSION, State, World};

const BULKERS: usize = 2;
const ROTOR: usize = BULKERS;
const SECOND_ROTOR: usize = ROTOR + 1;
const CLIENT: usize = SECOND_ROTOR + 1;
/// Steps with faults.
const CHAOS: u64 = 3500;
/// Steps after which a calm world that still works is stuck.
const CALM: u64 = 60_000;

/// Runs the world of `seed` to its end.
///
/// # Errors
/// The promise that was broken.
pub fn run(seed: u64, control: Control) -> Result<Stats, Violation> {
    let mut random = Random::new(seed);
    let messages = 8 + u32::try_from(random.below(16)).unwrap_or(0);
    let aimed = matches!(control, Control::Wait | Control::Kill | Control::KillOther);
    let memory = match seed % 4 {
        _ if aimed => Memory::Last(1),
        0 => Memory::Last(1 + random.index(8)),
        2 => Memory::Steps(1 + random.below(400)),
        _ => Memory::All,
    };
    let mut gateway = Gateway::new(2);
    gateway.forgets_early = control == Control::ForgetsIds;
    let state = State {
        control,
        random,
        now: 0,
        chaos: true,
        stopped: BTreeMap::new(),
        polled: BTreeMap::new(),
        logs: Default::default(),
        transformed: Default::default(),
        dead: Vec::new(),
        group: Group::default(),
        rotor_committed: [0; LOGS],
        server: Server::new(memory),
        alarmed: BTreeSet::new(),
        answered: BTreeSet::new(),
        both: BTreeSet::new(),
        first_failed: BTreeMap::new(),
        gateway,
        refused: BTreeMap::new(),
        stats: Stats::default(),
    };
    let mut scene = Scene {
        world: World::new(state),
        tasks: Vec::new(),
    };
    let world = scene.world.clone();
    scene
        .tasks
        .push(Task::new(CLIENT, gateway::client(world, messages)));
    for _ in 0..CHAOS {
        scene.misfortune();
        scene.step();
    }
    scene.calm();
    for _ in 0..CALM {
        scene.step();
        if scene.is_dry() {
            let mut state = scene.world.get();
            oracle::check(&state)?;
            state.stats.steps = state.now;
            state.stats.lapses = state.gateway.lapses.values().sum();
            return Ok(state.stats);
        }
    }
    let state = scene.world.get();
    let held = ALL_PARTITIONS.map(|partition| {
        let committed = state.group.of(partition).committed.as_ref();
        (committed.map(|(offset, _)| *offset), state.end(partition))
    });
    Err(Violation::Stuck(format!("committed and end: {held:?}")))
}

struct Scene {
    world: World,
    tasks: Vec<Task>,
}

impl Scene {
    /// Something bad, now and then.
    fn misfortune(&mut self) {
        let (what, process) = {
            let mut state = self.world.get();
            if !state.random.chance(25) {
                return;
            }
            (state.random.below(18), state.random.index(SECOND_ROTOR + 1))
        };
        match what {
            0..=2 => self.kill(process),
            3..=4 => self.stop(process),
            5 => self.stop_while_it_sends(),
            6..=7 => self.move_partition(),
            8 => gateway::kill_a_pod(&self.world),
            9..=10 => self.replay(),
            11 => self.second_rotor(),
            16 => self.lose_the_offset(),
            17 => self.adopt(),
            _ => warehouse::weather(&self.world),
        }
    }

    fn kill(&mut self, process: usize) {
        self.tasks.retain(|task| task.process != process);
        let mut state = self.world.get();
        state.stats.kills += 1;
        state.stopped.remove(&process);
    }

    fn stop(&mut self, process: usize) {
        let mut state = self.world.get();
        state.stats.stops += 1;
        let until = state.now + state.random.below(4 * SESSION);
        state.stopped.insert(process, until);
    }

    fn some_partition(&self) -> u32 {
        u32::try_from(self.world.get().random.index(PARTITIONS)).unwrap_or(0)
    }

    /// An owner is stopped for longer than the group waits for it.
    fn stop_while_it_sends(&mut self) {
        let partition = self.some_partition();
        let mut state = self.world.get();
        let Some(owner) = state.group.of(partition).owner else {
            return;
        };
        state.stats.stops += 1;
        let until = state.now + SESSION + state.random.below(3 * SESSION);
        state.stopped.insert(owner, until);
    }

    /// The other member takes one partition over while its owner lives, and perhaps goes on with the other one.
    fn move_partition(&mut self) {
        let partition = self.some_partition();
        let mut state = self.world.get();
        if let Some(owner) = state.group.of(partition).owner
            && !state.stopped.contains_key(&owner)
        {
            state.stats.moves += 1;
            drop(state);
            self.assign(partition, (owner + 1) % BULKERS);
            let mut state = self.world.get();
            if state.group.is_member(owner) {
                state.stats.halves += 1;
            }
        }
    }

    /// Somebody sends dead letters round again, now and then twice.
    fn replay(&self) {
        let mut state = self.world.get();
        let state = &mut *state;
        if state.dead.is_empty() {
            return;
        }
        let index = state.random.index(state.dead.len());
        let letter = state.dead[index];
        if let Some((table, sub)) = letter.row {
            state.both.insert((letter.event(), table, sub));
        }
        for _ in 0..=state.random.below(2) {
            state.go_round(Incoming {
                identity: letter.identity,
                message: letter.message,
                attempt: letter.attempt + 1,
                row: letter.row,
            });
        }
    }

    fn second_rotor(&mut self) {
        if !self.lives(SECOND_ROTOR) {
            let world = self.world.clone();
            self.tasks.push(Task::new(SECOND_ROTOR, rotor::run(world)));
        }
    }

    /// The bulkers are ended, and a partition's offset is forgotten or set by hand; the state beside it is lost with it.
    fn lose_the_offset(&mut self) {
        if !self.world.get().random.chance(200) {
            return;
        }
        let partition = self.some_partition();
        self.end_bulkers();
        let mut state = self.world.get();
        let state = &mut *state;
        let Some((offset, _)) = &state.group.of(partition).committed else {
            return;
        };
        let by_hand = state.random.below(*offset + 1);
        let committed = state.random.chance(700).then(|| (by_hand, String::new()));
        let forgotten = committed.is_none();
        state.group.of_mut(partition).committed = committed;
        if forgotten {
            state.adopted(partition);
        }
    }

    /// As `millctl ledger adopt` does where bulkers refuse to go on: from the beginning of the log, and everything that is
    /// in it now is asked for.
    fn adopt(&mut self) {
        for partition in ALL_PARTITIONS {
            let held = self.world.get().group.of(partition).committed.clone();
            if held.is_none_or(|(_, metadata)| Metadata::decode(&metadata).is_ok()) {
                continue;
            }
            self.end_bulkers();
            let mut state = self.world.get();
            let metadata = match state.control {
                Control::Adoption => Metadata::default(),
                _ => Metadata::adopting(state.end(partition)),
            };
            state.group.of_mut(partition).committed = metadata.encode().ok().map(|text| (0, text));
            state.adopted(partition);
        }
    }

    fn end_bulkers(&mut self) {
        (0..BULKERS).for_each(|bulker| self.kill(bulker));
    }

    /// No more faults: everything that is away comes back, everything that is stopped goes on. The rotor starts anew,
    /// so that a last commit that did not hold is made good.
    fn calm(&mut self) {
        self.adopt();
        self.tasks
            .retain(|task| ![ROTOR, SECOND_ROTOR].contains(&task.process));
        let mut state = self.world.get();
        state.chaos = false;
        state.stopped.clear();
        state.server.away = false;
        state.server.broken.clear();
    }

    fn step(&mut self) {
        let stopped = {
            let mut state = self.world.get();
            state.now += 1;
            let now = state.now;
            state.stopped.retain(|_, until| *until > now);
            state.stopped.clone()
        };
        warehouse::serve(&self.world);
        gateway::ship(&self.world);
        ALL_PARTITIONS
            .into_iter()
            .for_each(|partition| self.rebalance(partition));
        if !self.lives(ROTOR) {
            let world = self.world.clone();
            self.tasks.push(Task::new(ROTOR, rotor::run(world)));
        }
        let index = {
            let mut state = self.world.get();
            state.random.index(self.tasks.len())
        };
        if !stopped.contains_key(&self.tasks[index].process) && self.tasks[index].step() {
            drop(self.tasks.swap_remove(index));
        }
        let left = std::mem::take(&mut self.world.get().group.left);
        self.tasks.retain(|task| !left.contains(&task.process));
    }

    /// Gives a partition to somebody where its owner is gone, or has been silent for too long.
    fn rebalance(&mut self, partition: u32) {
        let (owner, epoch) = {
            let mut state = self.world.get();
            let now = state.now;
            for process in 0..BULKERS {
                if !state.stopped.contains_key(&process) {
                    state.polled.insert(process, now);
                }
            }
            let assignment = state.group.of(partition);
            let (owner, epoch) = (assignment.owner, assignment.epoch);
            let Some(owner) = owner else {
                let first = state.random.index(BULKERS);
                drop(state);
                return self.assign(partition, first);
            };
            let seen = state.polled.get(&owner).copied().unwrap_or(now);
            if now - seen > SESSION {
                state.group.fenced.insert(epoch);
                drop(state);
                return self.assign(partition, (owner + 1) % BULKERS);
            }
            (owner, epoch)
        };
        let works = |task: &Task| (task.process, task.epoch) == (owner, epoch);
        if !self.tasks.iter().any(works) {
            let next = self.world.get().random.index(BULKERS);
            self.assign(partition, next);
        }
    }

    fn assign(&mut self, partition: u32, member: usize) {
        let epoch = self.world.get().group.assign(partition, member);
        let task = bulker::run(self.world.clone(), partition, member, epoch);
        self.tasks.push(Task::new(member, task).of(epoch));
    }

    fn lives(&self, process: usize) -> bool {
        self.tasks.iter().any(|task| task.process == process)
    }

    fn is_dry(&self) -> bool {
        if self.lives(CLIENT) {
            return false;
        }
        let state = self.world.get();
        let settled = |partition| match &state.group.of(partition).committed {
            Some((offset, metadata)) => *offset == state.end(partition) && !bulker::plans(metadata),
            None => state.end(partition) == 0,
        };
        let read = |log: usize| u64::try_from(state.logs[log].len()) == Ok(state.rotor_committed[log]);
        ALL_PARTITIONS.into_iter().all(settled)
            && state.gateway.is_empty()
            && (0..LOGS).all(read)
            && !state.server.is_busy()
    }
}
