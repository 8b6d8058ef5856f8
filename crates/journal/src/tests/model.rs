//! Any sequence of appends, shipments, deaths and torn tails, against a map.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::failing::{Failing, open_on};
use super::*;

#[derive(Clone, Debug)]
enum Step {
    /// One request with an entry per partition named.
    Append(Vec<u8>, u16),
    /// Ships one batch of each lane.
    Ship,
    /// Ships one batch of each lane, and dies before it is acknowledged.
    ShipAndDie,
    Tidy,
    /// Dies; of the bytes that were never synced a part is lost.
    Die(prop::sample::Index),
    /// Dies while writing: so many bytes of rubbish follow the last record.
    DieWriting(Vec<u8>),
    Close,
    /// So many bytes fit on the disk, the next write beyond is carried out in part.
    Full(u8),
    /// A failed write cannot be taken back.
    CutsFail,
    /// Syncs fail; what they were to make durable is in the files all the same.
    SyncsFail,
    /// The disk is sound again; a journal that a failed sync has closed stays closed.
    Mended,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        8 => (proptest::collection::vec(0_u8..3, 1..5), 0_u16..3000).prop_map(|(to, size)| Step::Append(to, size)),
        3 => Just(Step::Ship),
        1 => Just(Step::ShipAndDie),
        2 => Just(Step::Tidy),
        1 => any::<prop::sample::Index>().prop_map(Step::Die),
        1 => proptest::collection::vec(any::<u8>(), 1..300).prop_map(Step::DieWriting),
        1 => Just(Step::Close),
        1 => any::<u8>().prop_map(Step::Full),
        1 => Just(Step::CutsFail),
        1 => Just(Step::SyncsFail),
        3 => Just(Step::Mended),
    ];
    proptest::collection::vec(step, 1..40)
}

/// What must be true whatever happened.
#[derive(Default)]
struct Model {
    /// What was answered, and not lost with bytes that were never promised.
    accepted: BTreeMap<Identity, Vec<u8>>,
    /// What left, by identity: two events must never share one.
    shipped: BTreeMap<Identity, Vec<u8>>,
    count: u64,
    /// Whether numbers may have been used up by records that nobody was answered for.
    cuts_failed: bool,
}

impl Model {
    fn ship(&mut self, records: Vec<Shipped>) {
        for record in records {
            let value = record.value.to_vec();
            let known = self.shipped.insert(record.identity, value.clone());
            assert!(
                known.is_none_or(|known| known == value),
                "{} is two events",
                record.identity
            );
        }
    }
}

/// Bytes of the newest segment that may be shipped, hence are durable.
fn durable(journal: &Journal) -> Option<(u64, u64)> {
    let state = journal.shared.lock();
    state
        .segments
        .iter()
        .next_back()
        .map(|(number, segment)| (*number, segment.readable))
}

async fn run(sync: Sync, roomy: bool, steps: Vec<Step>) {
    let dir = tempfile::tempdir().unwrap();
    let disk = Failing::with_room(roomy);
    let reopen = || {
        disk.mend();
        open_on(dir.path(), sync, &disk)
    };
    let mut journal = reopen();
    let mut model = Model::default();
    // Whether a background sync may still fail, or has closed the journal.
    let mut syncs_failed = false;
    for step in steps {
        match step {
            Step::Append(partitions, size) => {
                let entries = partitions
                    .iter()
                    .map(|partition| {
                        model.count += 1;
                        let mut value = model.count.to_string().into_bytes();
                        value.resize(value.len() + usize::from(size), b'.');
                        entry(u32::from(*partition), value)
                    })
                    .collect::<Vec<_>>();
                let Ok(identities) = journal.append(entries.clone()).await else {
                    assert!(!disk.is_sound() || journal.health() == Health::Failed);
                    continue;
                };
                model.accepted.extend(
                    identities
                        .into_iter()
                        .zip(entries.into_iter().map(|entry| entry.value)),
                );
            }
            Step::Ship | Step::ShipAndDie => {
                let reader = journal.reader();
                let die = matches!(step, Step::ShipAndDie);
                for lane in reader.lanes() {
                    if let Some(batch) = reader.take(lane, LIMITS).unwrap() {
                        if !die {
                            reader.acknowledge(&batch);
                        }
                        model.ship(batch.records);
                    }
                }
                if die {
                    drop((reader, journal));
                    journal = reopen();
                }
            }
            Step::Tidy => drop(journal.reader().tidy().unwrap()),
            Step::Full(room) => disk.leave(i64::from(room)),
            Step::CutsFail => {
                disk.fail_cuts(true);
                model.cuts_failed = true;
            }
            Step::SyncsFail => {
                disk.fail_syncs(true);
                syncs_failed = true;
            }
            Step::Mended => disk.mend(),
            Step::Die(keep) => {
                let durable = durable(&journal);
                drop(journal);
                if let Some((number, readable)) = durable {
                    let path = segment::path(dir.path(), number);
                    let length = std::fs::metadata(&path).unwrap().len();
                    let unsynced = usize::try_from(length - readable).unwrap();
                    let cut = readable + u64::try_from(keep.index(unsynced + 1)).unwrap();
                    File::options()
                        .write(true)
                        .open(&path)
                        .unwrap()
                        .set_len(cut)
                        .unwrap();
                }
                journal = reopen();
                // What was never promised may be gone, and only that; it is found out by asking the journal.
                let held = held(&journal);
                let (model_shipped, accepted) = (&model.shipped, &mut model.accepted);
                if sync == Sync::Interval {
                    accepted.retain(|id, _| held.contains(id) || model_shipped.contains_key(id));
                }
            }
            Step::DieWriting(rubbish) => {
                drop(journal);
                if let Some((_, path)) = recover::segments(dir.path()).unwrap().pop() {
                    let mut bytes = std::fs::read(&path).unwrap();
                    bytes.extend_from_slice(&rubbish);
                    std::fs::write(&path, bytes).unwrap();
                }
                journal = reopen();
            }
            Step::Close => {
                let closed = journal.close().await;
                assert!(closed.is_ok() || !disk.is_sound() || journal.health() == Health::Failed);
                drop(journal);
                journal = reopen();
            }
        }
    }
    if syncs_failed {
        drop(journal);
        journal = reopen();
    }
    let rest = drain(&journal).await;
    model.ship(rest);
    for (identity, value) in &model.accepted {
        assert_eq!(
            model.shipped.get(identity),
            Some(value),
            "{identity} was answered and did not leave"
        );
    }
    journal.reader().tidy().unwrap();
    if model.cuts_failed {
        return;
    }
    assert!(!dir.path().join("aside.jsonl").exists(), "nothing was damaged");
    let mut next: BTreeMap<u32, u64> = BTreeMap::new();
    for identity in model.shipped.keys() {
        let expected = next.entry(identity.partition).or_default();
        assert_eq!(identity.seq, *expected, "numbers are dense");
        *expected += 1;
    }
}

/// The identities that a journal just opened will ship.
fn held(journal: &Journal) -> std::collections::BTreeSet<Identity> {
    let state = journal.shared.lock();
    let mut held = std::collections::BTreeSet::new();
    for segment in state.segments.values() {
        for (lane, slots) in segment.index.iter().flatten() {
            held.extend(
                slots
                    .iter()
                    .filter_map(|slot| journal.shared.identity(*lane, segment.epoch, slot.seq)),
            );
        }
    }
    held
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn every_answered_event_leaves_and_no_identity_is_two_events(steps in steps(), always: bool, roomy: bool) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(run(if always { Sync::Always } else { Sync::Interval }, roomy, steps));
    }
}
