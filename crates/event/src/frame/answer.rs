//! Outcomes on their way into an answer.

use serde_json::to_string;

use super::Outcome;
use super::payload::{Head, OUTCOMES, PayloadError, put_length, put_text};
use crate::code::Verdict;

/// Bytes in front of the first outcome: the form, and how many there are.
const FRONT: usize = 5;

/// Outcomes as [`Verdicts`](super::Verdicts) carry them, each written once, where it stays.
#[derive(Debug)]
pub struct Answer {
    bytes: Vec<u8>,
    /// Behind each outcome.
    ends: Vec<usize>,
}

impl Default for Answer {
    fn default() -> Self {
        Self::with_capacity(0, 0)
    }
}

impl Answer {
    /// With room for so many outcomes, of so many bytes together.
    pub fn with_capacity(outcomes: usize, bytes: usize) -> Self {
        let mut front = Vec::with_capacity(FRONT + bytes);
        front.extend_from_slice(&[OUTCOMES, 0, 0, 0, 0]);
        Self {
            bytes: front,
            ends: Vec::with_capacity(outcomes),
        }
    }

    /// How many there are.
    pub const fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there is none.
    pub const fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Writes one more.
    ///
    /// # Errors
    /// A text or a number does not fit in 4 bytes.
    pub fn push(&mut self, outcome: &Outcome<String>) -> Result<(), PayloadError> {
        let out = &mut self.bytes;
        let plain = outcome.verdict == Verdict::Forward
            && outcome.fault.is_none()
            && outcome.retry_after_ms.is_none()
            && outcome.resume.is_none();
        if plain {
            put_length(out, 0)?;
        } else {
            let head = Head {
                verdict: outcome.verdict,
                fault: outcome.fault.clone(),
                retry_after_ms: outcome.retry_after_ms,
                resume: outcome.resume.as_ref().map(|resume| resume.position),
            };
            put_text(out, &to_string(&head).map_err(PayloadError::Json)?)?;
        }
        let kept = outcome.resume.as_ref().map(|resume| &resume.event);
        put_length(out, outcome.events.len() + usize::from(kept.is_some()))?;
        for event in outcome.events.iter().chain(kept) {
            put_text(out, event)?;
        }
        self.ends.push(self.bytes.len());
        Ok(())
    }

    /// Writes one that forwards a single event, whose text `write` appends. Where that fails, there is none.
    ///
    /// # Errors
    /// What `write` says.
    pub fn forward<E: From<PayloadError>>(
        &mut self,
        write: impl FnOnce(&mut Vec<u8>) -> Result<(), E>,
    ) -> Result<(), E> {
        let before = self.bytes.len();
        // No head, one event, and its length once it is known.
        self.bytes
            .extend_from_slice(&[0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0]);
        let start = self.bytes.len();
        let written = write(&mut self.bytes).and_then(|()| {
            let length = u32::try_from(self.bytes.len() - start).map_err(|_| PayloadError::Length)?;
            if let Some(place) = self.bytes.get_mut(start - 4..start) {
                place.copy_from_slice(&length.to_le_bytes());
            }
            Ok(())
        });
        match written {
            Ok(()) => self.ends.push(self.bytes.len()),
            Err(_) => self.bytes.truncate(before),
        }
        written
    }

    /// Appends the outcome at `index` of another answer; nothing where it has none.
    pub fn take_over(&mut self, other: &Self, index: usize) {
        let start = match index.checked_sub(1) {
            Some(before) => other.ends.get(before).copied(),
            None => Some(FRONT),
        };
        let range = start.zip(other.ends.get(index).copied());
        if let Some(bytes) = range.and_then(|(start, end)| other.bytes.get(start..end)) {
            self.bytes.extend_from_slice(bytes);
            self.ends.push(self.bytes.len());
        }
    }

    /// The bytes of the answer.
    ///
    /// # Errors
    /// The number of outcomes does not fit in 4 bytes.
    pub fn finish(self) -> Result<Vec<u8>, PayloadError> {
        let mut bytes = self.bytes;
        let count = u32::try_from(self.ends.len()).map_err(|_| PayloadError::Length)?;
        if let Some(place) = bytes.get_mut(1..FRONT) {
            place.copy_from_slice(&count.to_le_bytes());
        }
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::code::FunctionCode;
    use crate::frame::{Fault, Verdicts};

    fn outcomes() -> [Outcome<String>; 4] {
        [
            Outcome::forward(vec![r#"{"a":1}"#.to_owned()]),
            Outcome::dropped(),
            Outcome::forward(vec![r#"{"b":1}"#.to_owned(), r#"{"b":2}"#.to_owned()]),
            Outcome::dead_letter(Fault::new(FunctionCode::Thrown, "no")),
        ]
    }

    fn write(text: &str) -> impl FnOnce(&mut Vec<u8>) -> Result<(), PayloadError> {
        move |out: &mut Vec<u8>| {
            out.extend_from_slice(text.as_bytes());
            if text.ends_with('}') {
                Ok(())
            } else {
                Err(PayloadError::Length)
            }
        }
    }

    #[test]
    fn an_event_that_is_written_in_place_is_as_one_that_was_pushed() {
        let mut answer = Answer::default();
        for outcome in &outcomes()[..2] {
            answer.push(outcome).expect("small");
        }
        answer.forward(write(r#"{"c":"é"}"#)).expect("written");
        let pushed = [
            outcomes()[0].clone(),
            outcomes()[1].clone(),
            Outcome::forward(vec![r#"{"c":"é"}"#.to_owned()]),
        ];
        assert_eq!(answer.len(), 3);
        assert_eq!(
            answer.finish().expect("small"),
            Verdicts::encode(&pushed).expect("small")
        );
    }

    #[test]
    fn what_could_not_be_written_leaves_nothing_behind() {
        let mut answer = Answer::default();
        answer.forward(write("{}")).expect("written");
        assert!(answer.forward(write("cut off")).is_err());
        assert_eq!(answer.len(), 1);
        let alone = Verdicts::encode(&[Outcome::forward(vec!["{}".to_owned()])]).expect("small");
        assert_eq!(answer.finish().expect("small"), alone);
    }

    #[test]
    fn outcomes_of_several_answers_are_put_in_order() {
        let all = outcomes();
        let mut parts = [Answer::default(), Answer::default()];
        for (at, outcome) in all.iter().enumerate() {
            parts[at % 2].push(outcome).expect("small");
        }
        let mut together = Answer::default();
        for at in 0..all.len() {
            together.take_over(&parts[at % 2], at / 2);
        }
        together.take_over(&parts[0], 2);
        assert_eq!(
            together.finish().expect("small"),
            Verdicts::encode(&all).expect("small")
        );
    }
}
