//! One run: chaos, calm, verdict.

use std::collections::{BTreeMap, BTreeSet};

use crate::bulker;
use crate::control::Control;
use crate::executor::Task;
use crate::gateway::{self, Gateway};
use crate::oracle::{self, Violation};
use crate::random::Random;
use crate::rotor;
use crate::warehouse::{self, Server};
use crate::world::{Group, Incoming, LOGS, SESSION, State, World};
use millrace_ledger::Metadata;

const BULKERS: usize = 2;
const ROTOR: usize = BULKERS;
const SECOND_ROTOR: usize = ROTOR + 1;
const CLIENT: usize = SECOND_ROTOR + 1;
/// Steps with faults.
const CHAOS: u64 = 2500;
/// Steps after which a calm world that still works is stuck.
const CALM: u64 = 60_000;

/// What a run had to deal with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Processes killed.
    pub kills: u64,
    /// Processes stopped and continued.
    pub stops: u64,
    /// Moves of the partition between live members.
    pub moves: u64,
    /// Plans of a predecessor that were finished.
    pub recoveries: u64,
    /// Records that counted as duplicates.
    pub duplicates: u64,
    /// Inserts that a token held back.
    pub deduplicated: u64,
    /// Rows that the question found.
    pub found: u64,
    /// Rows named as bad.
    pub bad_rows: u64,
    /// Tables given up.
    pub given_up: u64,
    /// Watermarks written to the table `journals`.
    pub journals: u64,
    /// Plans that were cut shorter.
    pub cuts: u64,
    /// Blocks that went out once more for their view.
    pub views: u64,
    /// Partitions whose offset was lost or set by hand, and that were adopted.
    pub adoptions: u64,
}

impl Stats {
    /// Adds another run's.
    pub const fn add(&mut self, other: &Self) {
        self.kills += other.kills;
        self.stops += other.stops;
        self.moves += other.moves;
        self.recoveries += other.recoveries;
        self.duplicates += other.duplicates;
        self.deduplicated += other.deduplicated;
        self.found += other.found;
        self.bad_rows += other.bad_rows;
        self.given_up += other.given_up;
        self.journals += other.journals;
        self.cuts += other.cuts;
        self.views += other.views;
        self.adoptions += other.adoptions;
    }
}

/// Runs the world of `seed` to its end.
///
/// # Errors
/// The promise that was broken.
pub fn run(seed: u64, control: Control) -> Result<Stats, Violation> {
    let mut random = Random::new(seed);
    let messages = 8 + u32::try_from(random.below(16)).unwrap_or(0);
    let aimed = matches!(control, Control::Wait | Control::Kill);
    let window = match seed % 2 {
        _ if aimed => Some(1),
        0 => Some(1 + random.index(6)),
        _ => None,
    };
    let state = State {
        control,
        random,
        now: 0,
        chaos: true,
        stopped: BTreeMap::new(),
        polled: BTreeMap::new(),
        ingest: Vec::new(),
        retry: Default::default(),
        transformed: Vec::new(),
        dead: Vec::new(),
        group: Group::default(),
        rotor_committed: [0; LOGS],
        server: Server::with_window(window),
        deciders: BTreeMap::new(),
        alarmed: BTreeSet::new(),
        answered: BTreeSet::new(),
        replayed: BTreeSet::new(),
        gateway: Gateway::new(2),
        refused: BTreeSet::new(),
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
            let state = scene.world.get();
            oracle::check(&state)?;
            return Ok(state.stats);
        }
    }
    let state = scene.world.get();
    let held = state.group.committed.as_ref().map(|(offset, _)| *offset);
    let what = format!("committed {held:?} of {}", state.transformed.len());
    Err(Violation::Stuck(what))
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

    /// The owner is stopped for longer than the group waits for it.
    fn stop_while_it_sends(&mut self) {
        let mut state = self.world.get();
        let Some(owner) = state.group.owner else { return };
        state.stats.stops += 1;
        let until = state.now + SESSION + state.random.below(3 * SESSION);
        state.stopped.insert(owner, until);
    }

    /// The other member takes over while the owner lives.
    fn move_partition(&mut self) {
        let mut state = self.world.get();
        if let Some(owner) = state.group.owner
            && !state.stopped.contains_key(&owner)
        {
            state.stats.moves += 1;
            drop(state);
            self.assign((owner + 1) % BULKERS);
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
            state.replayed.insert((letter.message, table, sub));
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

    /// The bulkers are ended, and the group's offset is forgotten or set by hand; the state beside it is lost with it.
    fn lose_the_offset(&mut self) {
        if !self.world.get().random.chance(150) {
            return;
        }
        self.end_bulkers();
        let mut state = self.world.get();
        let state = &mut *state;
        let Some((offset, _)) = &mut state.group.committed else {
            return;
        };
        let by_hand = state.random.below(*offset + 1);
        state.group.committed = state.random.chance(700).then(|| (by_hand, String::new()));
        if state.group.committed.is_none() {
            state.adopted();
        }
    }

    /// As `millctl ledger adopt` does where bulkers refuse to go on: from the beginning of the log, and everything that is
    /// in it now is asked for.
    fn adopt(&mut self) {
        let held = self.world.get().group.committed.clone();
        if held.is_none_or(|(_, metadata)| Metadata::decode(&metadata).is_ok()) {
            return;
        }
        self.end_bulkers();
        let mut state = self.world.get();
        let end = u64::try_from(state.transformed.len()).unwrap_or(u64::MAX);
        let metadata = match state.control {
            Control::Adoption => Metadata::default(),
            _ => Metadata::adopting(end),
        };
        state.group.committed = metadata.encode().ok().map(|text| (0, text));
        state.adopted();
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
        self.rebalance();
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
    }

    /// Gives the partition to somebody where its owner is gone, or has been silent for too long.
    fn rebalance(&mut self) {
        let owner = {
            let mut state = self.world.get();
            let now = state.now;
            for process in 0..BULKERS {
                if !state.stopped.contains_key(&process) {
                    state.polled.insert(process, now);
                }
            }
            let Some(owner) = state.group.owner else {
                drop(state);
                return self.assign(0);
            };
            let seen = state.polled.get(&owner).copied().unwrap_or(now);
            if now - seen > SESSION {
                let epoch = state.group.epoch;
                state.group.fenced.insert(epoch);
                drop(state);
                return self.assign((owner + 1) % BULKERS);
            }
            owner
        };
        let epoch = self.world.get().group.epoch;
        if !self
            .tasks
            .iter()
            .any(|task| (task.process, task.epoch) == (owner, epoch))
        {
            let next = self.world.get().random.index(BULKERS);
            self.assign(next);
        }
    }

    fn assign(&mut self, process: usize) {
        let epoch = {
            let mut state = self.world.get();
            state.group.epoch += 1;
            state.group.owner = Some(process);
            state.group.epoch
        };
        let task = bulker::run(self.world.clone(), epoch);
        self.tasks.push(Task::new(process, task).of(epoch));
    }

    fn lives(&self, process: usize) -> bool {
        self.tasks.iter().any(|task| task.process == process)
    }

    fn is_dry(&self) -> bool {
        if self.lives(CLIENT) {
            return false;
        }
        let state = self.world.get();
        let end = u64::try_from(state.transformed.len()).unwrap_or(u64::MAX);
        let settled = match &state.group.committed {
            Some((offset, metadata)) => *offset == end && !bulker::plans(metadata),
            None => end == 0,
        };
        settled
            && state.gateway.is_empty()
            && (0..LOGS).all(|log| u64::try_from(state.log(log).len()) == Ok(state.rotor_committed[log]))
            && !state.server.is_busy()
    }
}
