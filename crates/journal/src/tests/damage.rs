//! Files torn at any byte, holes, zero pages and flipped bits, in any segment.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

/// What happens to one file.
#[derive(Clone, Debug)]
enum Harm {
    /// It ends here.
    Torn(prop::sample::Index),
    /// So many bytes from here on are zero, as a page that was never written.
    Zeroed(prop::sample::Index, u16),
    /// These bytes are others.
    Changed(prop::sample::Index, Vec<u8>),
    /// Zero pages follow its end.
    Longer(u16),
}

fn harm() -> impl Strategy<Value = Harm> {
    let at = any::<prop::sample::Index>;
    prop_oneof![
        at().prop_map(Harm::Torn),
        (at(), 1_u16..9000).prop_map(|(at, length)| Harm::Zeroed(at, length)),
        (at(), proptest::collection::vec(any::<u8>(), 1..40))
            .prop_map(|(at, bytes)| Harm::Changed(at, bytes)),
        (1_u16..9000).prop_map(Harm::Longer),
    ]
}

fn harmed(bytes: &[u8], harm: &Harm) -> Vec<u8> {
    let mut harmed = bytes.to_vec();
    match harm {
        Harm::Torn(at) => harmed.truncate(at.index(bytes.len() + 1)),
        Harm::Zeroed(at, length) => {
            let start = at.index(bytes.len());
            let end = (start + usize::from(*length)).min(bytes.len());
            harmed[start..end].fill(0);
        }
        Harm::Changed(at, new) => {
            let start = at.index(bytes.len());
            for (byte, new) in harmed[start..].iter_mut().zip(new) {
                *byte = *new;
            }
        }
        Harm::Longer(length) => harmed.resize(bytes.len() + usize::from(*length), 0),
    }
    harmed
}

/// The records of a file whose bytes are as they were, and whether its header is.
fn untouched(before: &[u8], after: &[u8]) -> (bool, Vec<(u32, u64)>) {
    let (header, start) = segment::Header::decode(before).expect("sound before");
    let same = |from: usize, to: usize| after.get(from..to) == before.get(from..to);
    let records = frame::scan(before, start, header.seed).filter_map(|item| match item {
        frame::Item::Record { offset, size, record } => {
            same(offset, offset + size).then_some((record.lane.partition, record.seq))
        }
        frame::Item::Damaged { .. } | frame::Item::Tail { .. } => panic!("sound before"),
    });
    (same(0, start), records.collect())
}

async fn run(sizes: Vec<u16>, which: prop::sample::Index, harm: Harm) {
    let dir = tempfile::tempdir().unwrap();
    let journal = open(dir.path(), Sync::Always);
    let mut values = BTreeMap::new();
    for (count, size) in (0_u32..).zip(sizes) {
        let value = vec![b'a'; usize::from(size)];
        let identity = journal
            .append(vec![entry(count % 3, value.clone())])
            .await
            .unwrap()[0];
        values.insert((identity.partition, identity.seq), value);
    }
    drop(journal);
    let files = recover::segments(dir.path()).unwrap();
    let (number, path) = which.get(&files).clone();
    let newest = files.last().unwrap().0 == number;
    let before = std::fs::read(&path).unwrap();
    let after = harmed(&before, &harm);
    std::fs::write(&path, &after).unwrap();
    let (header_sound, kept) = untouched(&before, &after);
    let mut expected: BTreeMap<_, _> = values.clone();
    let (_, all) = untouched(&before, &before);
    expected.retain(|key, _| !all.contains(key) || (header_sound && kept.contains(key)));

    let journal = open(dir.path(), Sync::Always);
    let shipped: BTreeMap<_, _> = drain(&journal)
        .await
        .into_iter()
        .map(|record| {
            (
                (record.identity.partition, record.identity.seq),
                record.value.to_vec(),
            )
        })
        .collect();
    assert_eq!(shipped, expected, "what was not touched leaves, and nothing else");
    for partition in 0..3 {
        let identity = journal.append(vec![entry(partition, "new")]).await.unwrap()[0];
        let key = (identity.partition, identity.seq);
        assert!(!shipped.contains_key(&key), "{key:?} is two events");
        // The newest segment's header says where numbering stands; with it gone the disk has lost what it promised.
        assert!(newest || !values.contains_key(&key), "{key:?} is two events");
    }
    // What was found once is found again; a tail is gone and is not set aside a second time.
    let aside = || std::fs::read(dir.path().join("aside.jsonl")).unwrap_or_default();
    let told = aside();
    drop(journal);
    let again = open(dir.path(), Sync::Always);
    assert_eq!(
        drain(&again).await.len(),
        shipped.len() + 3,
        "no position was stored, so all of it leaves again"
    );
    if matches!(harm, Harm::Torn(_) | Harm::Longer(_)) {
        assert_eq!(aside(), told);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn damage_anywhere_costs_the_records_it_touches_and_no_other(
        sizes in proptest::collection::vec(0_u16..3000, 1..24), which: prop::sample::Index, harm in harm(),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(run(sizes, which, harm));
    }
}
