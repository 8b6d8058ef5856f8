//! What a process costs and how long things take: `/proc`, pinning, a histogram.

use std::time::Duration;

use anyhow::{Context, Result};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use serde::Serialize;

/// CPU time of a process, all of its threads and those that have ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Cpu {
    /// In its own code.
    pub user: Duration,
    /// In the kernel on its behalf.
    pub system: Duration,
}

impl Cpu {
    /// What process `id` has used since it started; resolution is the kernel's tick, 10 ms.
    ///
    /// # Errors
    /// There is no such process.
    pub fn of(id: u32) -> Result<Self> {
        let stat = std::fs::read_to_string(format!("/proc/{id}/stat"))
            .with_context(|| format!("process {id} has ended"))?;
        // Behind the name, which may hold blanks: state is the 3rd field, utime the 14th, stime the 15th.
        let fields = stat.rsplit_once(')').map(|(_, rest)| rest).unwrap_or_default();
        let mut fields = fields.split_ascii_whitespace().skip(11);
        let mut ticks = || -> Result<Duration> {
            let ticks: u64 = fields.next().context("/proc/<pid>/stat is too short")?.parse()?;
            let per_second = rustix::param::clock_ticks_per_second().max(1);
            Ok(Duration::from_nanos(
                ticks.saturating_mul(1_000_000_000 / per_second),
            ))
        };
        Ok(Self {
            user: ticks()?,
            system: ticks()?,
        })
    }

    /// Sums the processes `ids`.
    ///
    /// # Errors
    /// One of them has ended.
    pub fn of_all(ids: &[u32]) -> Result<Self> {
        ids.iter().try_fold(Self::default(), |sum, id| {
            let own = Self::of(*id)?;
            Ok(Self {
                user: sum.user + own.user,
                system: sum.system + own.system,
            })
        })
    }

    /// What was used since `earlier`.
    #[must_use]
    pub fn since(self, earlier: Self) -> Self {
        Self {
            user: self.user.saturating_sub(earlier.user),
            system: self.system.saturating_sub(earlier.system),
        }
    }

    /// Both together.
    pub fn total(self) -> Duration {
        self.user + self.system
    }

    /// Seconds per million of `events`.
    pub fn per_million(self, events: u64) -> f64 {
        per_million(self.total(), events)
    }
}

/// Seconds of `time` per million of `events`.
#[expect(clippy::cast_precision_loss, reason = "counts of a bounded run")]
pub fn per_million(time: Duration, events: u64) -> f64 {
    time.as_secs_f64() * 1e6 / events.max(1) as f64
}

/// `events` per second of `time`.
#[expect(clippy::cast_precision_loss, reason = "counts of a bounded run")]
pub fn per_second(events: u64, time: Duration) -> f64 {
    events as f64 / time.as_secs_f64().max(1e-9)
}

/// Memory of a process, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Memory {
    /// Resident now.
    pub resident: u64,
    /// Resident at most since it started, or since [`Memory::forget_peak`].
    pub peak: u64,
}

impl Memory {
    /// What process `id` holds.
    ///
    /// # Errors
    /// There is no such process.
    pub fn of(id: u32) -> Result<Self> {
        let status = std::fs::read_to_string(format!("/proc/{id}/status"))
            .with_context(|| format!("process {id} has ended"))?;
        let field = |name: &str| -> Result<u64> {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            let number = line.and_then(|line| line.split_ascii_whitespace().next());
            let kibibytes: u64 = number.with_context(|| format!("{name} is missing"))?.parse()?;
            Ok(kibibytes * 1024)
        };
        Ok(Self {
            resident: field("VmRSS:")?,
            peak: field("VmHWM:")?,
        })
    }

    /// Makes the peak of process `id` start anew at what it holds now.
    ///
    /// # Errors
    /// There is no such process, or it is another user's.
    pub fn forget_peak(id: u32) -> Result<()> {
        let file = format!("/proc/{id}/clear_refs");
        std::fs::write(&file, "5").with_context(|| format!("{file} cannot be written"))
    }
}

/// The processors this thread may use, lowest first.
///
/// # Errors
/// The kernel does not tell.
pub fn cores() -> Result<Vec<usize>> {
    let set = sched_getaffinity(None)?;
    Ok((0..CpuSet::MAX_CPU).filter(|core| set.is_set(*core)).collect())
}

/// Keeps this thread, and every thread and process that it starts from here on, on `cores`.
///
/// # Errors
/// There is no such processor.
pub fn pin(cores: &[usize]) -> Result<()> {
    let mut set = CpuSet::new();
    for core in cores {
        set.set(*core);
    }
    sched_setaffinity(None, &set).with_context(|| format!("cannot be kept on processors {cores:?}"))
}

/// Sub-buckets of one power of two: values are known to 1/32.
const FINE: u64 = 32;
/// Powers of two above the exact ones.
const POWERS: u64 = 40;

/// How often things took how long. Its size is fixed, its error 3 %; times in whole microseconds.
#[derive(Clone, Debug)]
pub struct Histogram {
    counts: Vec<u64>,
    total: u64,
    most: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        let buckets = usize::try_from(FINE * (POWERS + 1)).unwrap_or(usize::MAX);
        Self {
            counts: vec![0; buckets],
            total: 0,
            most: 0,
        }
    }
}

impl Histogram {
    /// Takes one in.
    pub fn record(&mut self, time: Duration) {
        let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let last = self.counts.len() - 1;
        if let Some(count) = self.counts.get_mut(bucket(micros).min(last)) {
            *count += 1;
        }
        self.total += 1;
        self.most = self.most.max(micros);
    }

    /// Takes in all that another holds.
    pub fn merge(&mut self, other: &Self) {
        for (own, other) in self.counts.iter_mut().zip(&other.counts) {
            *own += other;
        }
        self.total += other.total;
        self.most = self.most.max(other.most);
    }

    /// How many.
    pub const fn count(&self) -> u64 {
        self.total
    }

    /// The time that `share` of them, 0.99 say, did not exceed.
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a rank within a count"
    )]
    pub fn quantile(&self, share: f64) -> Duration {
        let rank = (self.total as f64 * share).ceil().max(1.0) as u64;
        let mut seen = 0;
        for (index, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= rank {
                return Duration::from_micros(highest(index).min(self.most));
            }
        }
        Duration::from_micros(self.most)
    }

    /// The longest.
    pub const fn most(&self) -> Duration {
        Duration::from_micros(self.most)
    }
}

fn bucket(value: u64) -> usize {
    let index = if value < FINE {
        value
    } else {
        let power = u64::from(value.ilog2()) - u64::from(FINE.ilog2());
        (power + 1) * FINE + (value >> power) - FINE
    };
    usize::try_from(index).unwrap_or(usize::MAX)
}

/// The highest value of a bucket.
fn highest(index: usize) -> u64 {
    let index = u64::try_from(index).unwrap_or(u64::MAX);
    if index < FINE {
        return index;
    }
    let (power, fine) = (index / FINE - 1, index % FINE + FINE);
    ((fine + 1) << power) - 1
}
