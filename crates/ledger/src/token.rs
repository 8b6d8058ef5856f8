//! The deduplication token of one insert: a function of what is in it, and of nothing else.

use std::fmt;

use millrace_event::Identity;
use sha2::{Digest, Sha256};

/// 128 bits that stand for one block of one table: every attempt by anyone to write the same rows carries the
/// same token, and no other rows do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Token([u8; 16]);

/// What a row's identity and `sub` take in a token's text.
const ROW_BYTES: usize = 8 + 4 + 8 + 2;

impl Token {
    /// The token of the rows `rows`, in their order, in one partition of one table.
    ///
    /// `month` must be part of it: one chunk may touch several partitions of a table, each with a block of its
    /// own, and views deduplicate by the token alone. `part` tells several blocks of the same month apart.
    pub fn of(table: &str, month: &str, part: u32, rows: impl IntoIterator<Item = (Identity, u16)>) -> Self {
        let mut hash = Sha256::new();
        for text in [table, month] {
            hash.update(u64::try_from(text.len()).unwrap_or(u64::MAX).to_le_bytes());
            hash.update(text.as_bytes());
        }
        hash.update(part.to_le_bytes());
        for (identity, sub) in rows {
            // One piece for a row: the digest takes four small ones at twice the price.
            let mut row = [0; ROW_BYTES];
            row[..8].copy_from_slice(&identity.journal.0.to_le_bytes());
            row[8..12].copy_from_slice(&identity.partition.to_le_bytes());
            row[12..20].copy_from_slice(&identity.seq.to_le_bytes());
            row[20..].copy_from_slice(&sub.to_le_bytes());
            hash.update(row);
        }
        let mut token = [0; 16];
        for (to, from) in token.iter_mut().zip(hash.finalize()) {
            *to = from;
        }
        Self(token)
    }
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use millrace_event::JournalId;

    fn row(seq: u64, sub: u16) -> (Identity, u16) {
        (
            Identity {
                journal: JournalId(1),
                partition: 2,
                seq,
            },
            sub,
        )
    }

    #[test]
    fn the_token_of_given_rows_never_changes() {
        let token = Token::of("ws_demo.events", "202611", 0, [row(0, 0), row(1, 0)]);
        assert_eq!(token.to_string(), "3e49f6070a6509c12faf411994f55c65");
    }

    #[test]
    fn another_table_month_part_row_or_order_is_another_token() {
        let token = Token::of("a.b", "202611", 0, [row(0, 0), row(1, 0)]);
        for other in [
            Token::of("a.c", "202611", 0, [row(0, 0), row(1, 0)]),
            Token::of("a.b2", "02611", 0, [row(0, 0), row(1, 0)]),
            Token::of("a.b", "202612", 0, [row(0, 0), row(1, 0)]),
            Token::of("a.b", "202611", 1, [row(0, 0), row(1, 0)]),
            Token::of("a.b", "202611", 0, [row(1, 0), row(0, 0)]),
            Token::of("a.b", "202611", 0, [row(0, 0)]),
            Token::of("a.b", "202611", 0, [row(0, 0), row(1, 1)]),
        ] {
            assert_ne!(token, other);
        }
    }
}
