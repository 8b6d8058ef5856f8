//! The memory that the rotor shares with a worker, and frames that go through it.

use std::os::unix::net::UnixStream;

use millrace_event::frame::{Kind, Shared};
use millrace_rotor::region::{HALF, Region};
use millrace_rotor::wire::{Received, Wire, WireError};

/// Both sides of a region.
fn sides() -> (Region, Region) {
    let (ours, file) = Region::create().expect("memory");
    (ours, Region::open(file).expect("the region"))
}

/// Both ends of a socket, with these regions.
fn wires(regions: [Option<Region>; 2]) -> [Wire; 2] {
    let (ours, theirs) = UnixStream::pair().expect("a socket pair");
    let [first, second] = regions;
    [
        Wire::new(ours, first).expect("an end"),
        Wire::new(theirs, second).expect("an end"),
    ]
}

fn frame(wire: &mut Wire) -> (Kind, u64, Vec<u8>) {
    match wire.receive().expect("a frame") {
        Received::Frame { kind, id, payload } => (kind, id, payload.to_vec()),
        other => panic!("{other:?} instead of a frame"),
    }
}

#[test]
fn each_side_reads_what_the_other_one_wrote_and_not_its_own() {
    let (ours, theirs) = sides();
    assert!(ours.put(&[b"from the ", b"", b"parent"]) && theirs.put(&[b"from the worker"]));
    assert_eq!(theirs.take(15).as_deref(), Some(&b"from the parent"[..]));
    assert_eq!(ours.take(15).as_deref(), Some(&b"from the worker"[..]));
}

#[test]
fn a_half_takes_what_fits_and_nothing_more_is_read_or_written() {
    let (ours, theirs) = sides();
    let full = vec![7; HALF];
    assert!(theirs.put(&[b"stays"]) && ours.put(&[&full]));
    assert!(!ours.put(&[&full, b"x"]), "more than a half");
    assert_eq!(theirs.take(HALF), Some(full));
    assert_eq!(theirs.take(HALF + 1), None);
    assert_eq!(ours.take(5).as_deref(), Some(&b"stays"[..]));
}

#[test]
fn a_file_that_somebody_could_cut_is_no_region() {
    let file = tempfile::tempfile().expect("a file");
    file.set_len(2 * HALF as u64).expect("a length");
    assert!(Region::open(&file).is_err());
    assert!(Region::open(std::io::stderr()).is_err());
}

#[test]
fn large_batches_and_verdicts_go_through_shared_memory_and_everything_else_by_the_socket() {
    let (ours, theirs) = sides();
    let [mut parent, mut worker] = wires([Some(ours), Some(theirs)]);
    let payload = vec![b'e'; 100_000];
    for (kind, size) in [(Kind::Batch, 100_000), (Kind::Load, 100_000), (Kind::Batch, 10)] {
        parent.send_parts(kind, 3, &[&payload[..size]]).expect("sent");
        assert_eq!(frame(&mut worker), (kind, 3, payload[..size].to_vec()));
    }
    let (first, second) = payload.split_at(70_000);
    worker
        .send_parts(Kind::Verdicts, 4, &[first, second])
        .expect("sent");
    assert_eq!(frame(&mut parent), (Kind::Verdicts, 4, payload));
}

#[test]
fn a_worker_that_speaks_of_memory_that_is_not_there_is_not_understood() {
    let says = |kind: u8, payload_len: u32, region: Option<Region>| {
        let [mut parent, mut worker] = wires([region, None]);
        let mut shared = Shared {
            kind: Kind::Verdicts,
            payload_len,
        }
        .encode();
        shared[0] = kind;
        worker.send_parts(Kind::Shared, 1, &[&shared]).expect("sent");
        parent.receive()
    };
    let region = || Some(Region::create().expect("memory").0);
    let verdicts = Kind::Verdicts as u8;
    assert!(matches!(
        says(verdicts, 5_000, region()),
        Ok(Received::Frame { .. })
    ));
    let too_long = u32::try_from(HALF).expect("small") + 1;
    for said in [
        says(verdicts, 5_000, None),
        says(verdicts, too_long, region()),
        says(verdicts, u32::MAX, region()),
        says(Kind::Shared as u8, 5, region()),
        says(77, 5, region()),
    ] {
        assert!(matches!(said, Err(WireError::Frame(_))), "{said:?}");
    }
}
