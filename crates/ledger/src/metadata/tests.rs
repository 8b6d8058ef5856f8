use super::*;
use proptest::prelude::*;

const GOLDEN: &str = include_str!(concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../../schemas/commit/metadata.v1.golden.txt"
));

const GOLDEN_ASKING: &str = include_str!(concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../../schemas/commit/metadata.v2.golden.txt"
));

fn example() -> Metadata {
    let watermark =
        |next, holes: &[std::ops::Range<u64>]| Watermark::from_parts(next, holes.to_vec()).expect("valid");
    Metadata {
        commit_no: 300,
        ask_until: 0,
        plan: Some(Plan {
            first: 1000,
            last: 1999,
            bad_rows: vec![BadRow {
                journal: JournalId(0xab),
                seq: 41,
                sub: 2,
            }],
            given_up: vec![table_hash("ws_demo.events")],
        }),
        watermarks: BTreeMap::from([
            (JournalId(0xab), watermark(1234, &[3..5, 900..1000])),
            (JournalId(0xffff_ffff_ffff_ff00), watermark(1 << 40, &[])),
        ]),
    }
}

#[test]
fn the_encoding_keeps_its_golden_bytes() {
    assert_eq!(example().encode().expect("small"), GOLDEN.trim_end());
    assert_eq!(Metadata::decode(GOLDEN.trim_end()), Ok(example()));
}

#[test]
fn what_an_operator_commits_keeps_its_golden_bytes() {
    let text = Metadata::adopting(2000).encode().expect("small");
    assert_eq!(text, GOLDEN_ASKING.trim_end());
    assert_eq!(Metadata::decode(&text), Ok(Metadata::adopting(2000)));
}

#[test]
fn an_unknown_version_is_refused() {
    let text = STANDARD_NO_PAD.encode([3, 0, 0, 0]);
    assert_eq!(Metadata::decode(&text), Err(MetadataError::UnknownVersion(3)));
}

#[test]
fn two_hundred_journals_fit_and_what_does_not_fit_is_refused() {
    let with = |count: u64| Metadata {
        commit_no: u64::MAX,
        ask_until: 0,
        plan: Some(Plan::new(u64::MAX - 1, u64::MAX)),
        watermarks: (0..count)
            .map(|n| (JournalId(n), Watermark::from_parts(1 << 40, []).expect("valid")))
            .collect(),
    };
    let text = with(200).encode().expect("200 journals fit");
    assert!(text.len() <= MAX_ENCODED_BYTES);
    assert!(matches!(with(300).encode(), Err(MetadataError::TooLarge(_))));
    assert!(matches!(
        Metadata::decode(&"A".repeat(4096)),
        Err(MetadataError::TooLarge(4096))
    ));
}

#[test]
fn every_proper_prefix_and_every_longer_text_is_refused() {
    let bytes = STANDARD_NO_PAD.decode(GOLDEN.trim_end()).expect("base64");
    for length in 0..bytes.len() {
        let text = STANDARD_NO_PAD.encode(&bytes[..length]);
        assert!(
            Metadata::decode(&text).is_err(),
            "{length} of {} bytes",
            bytes.len()
        );
    }
    let longer = STANDARD_NO_PAD.encode([bytes, vec![0]].concat());
    assert_eq!(
        Metadata::decode(&longer),
        Err(MetadataError::Malformed("something stands behind its end"))
    );
}

#[test]
fn a_plan_that_ends_before_it_starts_is_refused() {
    let text = STANDARD_NO_PAD.encode([1, 0, 1, 5, 4, 0, 0, 0]);
    assert_eq!(
        Metadata::decode(&text),
        Err(MetadataError::Malformed("a plan ends before it starts"))
    );
}

#[test]
fn a_number_that_is_longer_than_need_be_is_refused() {
    let text = STANDARD_NO_PAD.encode([1, 0x80, 0x00, 0, 0]);
    assert_eq!(
        Metadata::decode(&text),
        Err(MetadataError::Malformed("a number is not in its shortest form"))
    );
}

prop_compose! {
    fn watermarks()(steps in proptest::collection::vec((1_u64..1000, 1_u64..1000), 0..5), behind in 0_u64..1 << 50) -> Watermark {
        let mut end = 0;
        let mut holes = Vec::new();
        for (gap, length) in steps {
            holes.push(end + gap..end + gap + length);
            end += gap + length;
        }
        Watermark::from_parts(end + behind, holes).expect("built in order")
    }
}

prop_compose! {
    fn plans()(
        first in 0_u64..1 << 62,
        length in 0_u64..1 << 20,
        bad in proptest::collection::vec((any::<u64>(), any::<u64>(), any::<u16>()), 0..5),
        given_up in proptest::collection::vec(any::<u64>(), 0..4),
    ) -> Plan {
        let bad_rows = bad.into_iter().map(|(journal, seq, sub)| BadRow { journal: JournalId(journal), seq, sub }).collect();
        Plan { first, last: first + length, bad_rows, given_up }
    }
}

proptest! {
    #[test]
    fn whatever_is_written_is_read_back(
        commit_no: u64,
        ask_until: u64,
        plan in proptest::option::of(plans()),
        marks in proptest::collection::btree_map(any::<u64>().prop_map(JournalId), watermarks(), 0..20),
    ) {
        let metadata = Metadata { commit_no, ask_until, plan, watermarks: marks };
        let text = metadata.encode().expect("it is small");
        prop_assert_eq!(Metadata::decode(&text), Ok(metadata));
    }

    #[test]
    fn bytes_from_anywhere_never_panic_and_read_back_as_they_were(
        version in VERSION..=ASKING_VERSION,
        bytes in proptest::collection::vec(any::<u8>(), 0..200),
    ) {
        let text = STANDARD_NO_PAD.encode([vec![version], bytes].concat());
        if let Ok(metadata) = Metadata::decode(&text) {
            prop_assert_eq!(metadata.encode(), Ok(text));
        }
    }
}
