//! What is to become of each event: it follows from its number.

use millrace_testkit::oracle;
use serde_json::Value;

/// Where an event must be in the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// In the table, at its first attempt.
    Stored,
    /// In the table, after its function asked for another attempt.
    StoredLater,
    /// Nowhere: its function drops it.
    Dropped,
    /// Among the dead letters, because its function throws.
    Thrown,
    /// Among the dead letters, because a value does not fit its column.
    Misfit,
}

/// How many events go by before the first that is no plain one, so that every column has its type by then.
pub const PLAIN: u64 = 60;

impl Fate {
    /// The fate of the event number `n`.
    pub const fn of(n: u64) -> Self {
        match n % 50 {
            _ if n < PLAIN => Self::Stored,
            7 => Self::Dropped,
            17 => Self::Thrown,
            27 => Self::StoredLater,
            37 => Self::Misfit,
            _ => Self::Stored,
        }
    }

    /// Whether it ends in the table.
    pub const fn is_stored(self) -> bool {
        matches!(self, Self::Stored | Self::StoredLater)
    }

    /// Whether it ends among the dead letters.
    pub const fn is_dead(self) -> bool {
        matches!(self, Self::Thrown | Self::Misfit)
    }
}

/// The function of the run: it does what each event's `fate` says, and stamps what it lets pass.
pub const FUNCTION: &str = "export default function (event, ctx) {
  const bag = event.properties ?? event.traits;
  if (bag.fate === 'drop') return null;
  if (bag.fate === 'throw') throw new Error('as the event says');
  if (bag.fate === 'retry' && ctx.attempt === 0) throw new RetryError('as the event says');
  // What ingest would refuse at the door, so that the bulker meets it.
  if (bag.fate === 'misfit') bag.price = 'priceless';
  bag.stamped = `stamped ${bag.n}`;
  return event;
}
";

/// The event number `n`: the oracle's, with its fate in it.
pub fn event(n: u64) -> Value {
    let mut event = oracle::event(n);
    let bag = ["properties", "traits"]
        .into_iter()
        .find(|bag| event.get(bag).is_some())
        .unwrap_or("properties");
    match Fate::of(n) {
        Fate::Stored => {}
        Fate::StoredLater => event[bag]["fate"] = "retry".into(),
        Fate::Dropped => event[bag]["fate"] = "drop".into(),
        Fate::Thrown => event[bag]["fate"] = "throw".into(),
        Fate::Misfit => event[bag]["fate"] = "misfit".into(),
    }
    event
}
