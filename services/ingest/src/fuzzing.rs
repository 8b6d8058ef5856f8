//! What the fuzz targets `body` and `head` do with their bytes; their corpus is an ordinary test.

use crate::pipeline::{Kind, Shape};
use crate::{http, pipeline};

/// Takes a body as the edge and the first steps of the pipeline do. The first byte says how: its lowest three bits
/// the `Content-Encoding`, the next one whether it is a batch.
///
/// # Panics
/// A body decodes to more than its caps allow, or an event that was let through is no JSON object.
pub fn body(bytes: &[u8]) {
    let Some((how, body)) = bytes.split_first() else {
        return;
    };
    let shape = match how & 8 {
        0 => Shape::Single(Kind::Track),
        _ => Shape::Batch,
    };
    let said = match how & 7 {
        1 => Some("gzip"),
        2 => Some("deflate"),
        3 => Some("br"),
        4 => Some("zstd"),
        5 => Some("gzip, br"),
        _ => None,
    };
    if let Some(decoded) = http::fuzzing::decoded(said, body) {
        pipeline::fuzzing::events(&decoded, shape);
    }
}

/// Takes what stands in front of a body: lines with the target of the request, `Authorization`, `X-Write-Key` and
/// `X-Forwarded-For`. An event in the query goes the way of a body.
///
/// # Panics
/// As [`body`], or a path changes when it is cleaned twice.
pub fn head(bytes: &[u8]) {
    let mut lines = bytes.splitn(4, |byte| *byte == b'\n');
    let mut line = || lines.next().unwrap_or_default();
    if let Some(event) = http::fuzzing::head(line(), line(), line(), line()) {
        pipeline::fuzzing::events(&event, Shape::Single(Kind::Page));
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    #[test]
    fn the_corpus_of_the_fuzz_targets_passes() {
        for (name, target) in [("body", super::body as fn(&[u8])), ("head", super::head)] {
            let corpus = Path::new(env!("CARGO_MANIFEST_DIR"))
                .join("../../fuzz/corpus")
                .join(name);
            let mut count = 0;
            for entry in std::fs::read_dir(corpus).unwrap() {
                target(&std::fs::read(entry.unwrap().path()).unwrap());
                count += 1;
            }
            assert!(count >= 8, "{count} seeds of {name}");
        }
    }
}
