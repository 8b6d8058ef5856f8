//! The steps that need no store, one after the other: for benches, which measure what each adds.

use std::sync::Arc;

use millrace_event::json::Value;
use millrace_event::{KeyKind, Timestamp};
use millrace_store::keys::IpPolicy;

use super::event::{self, Terms};
use super::types::{self, Fixed};
use super::{Clocks, EventLimits, Refusal, Shape, decode, shapes};

/// What events are judged by.
#[derive(Debug, Default)]
pub struct Steps {
    limits: EventLimits,
    clocks: Clocks,
    fixed: Arc<Fixed>,
}

impl Steps {
    /// Steps that know the types of all fields in `body`.
    ///
    /// # Errors
    /// The body is no batch.
    pub fn knowing(body: &[u8]) -> Result<Self, Refusal> {
        let mut steps = Self::default();
        let batch = decode::decode(body, Shape::Batch, steps.limits.batch)?;
        for event in batch.items() {
            let said = types::read(Value::from(*event), None, KeyKind::Server, &steps.fixed);
            Arc::make_mut(&mut steps.fixed).extend(said.into_unknown());
        }
        Ok(steps)
    }

    /// Decodes a batch; says how many events it has.
    ///
    /// # Errors
    /// The body is no batch.
    pub fn decode(&self, body: &[u8]) -> Result<usize, Refusal> {
        Ok(decode::decode(body, Shape::Batch, self.limits.batch)?
            .items()
            .len())
    }

    /// Decodes a batch and judges size, form, time and lateness of its events; says how many may go on.
    ///
    /// # Errors
    /// The body is no batch.
    pub fn prepare(&self, body: &[u8]) -> Result<usize, Refusal> {
        let batch = decode::decode(body, Shape::Batch, self.limits.batch)?;
        let prepared = batch
            .items()
            .iter()
            .filter(|event| event::prepare(event, None, Shape::Batch, &batch, self.terms()).is_ok());
        Ok(prepared.count())
    }

    /// As [`Self::prepare`] with the types of all fields, for events of which some that look alike came before; says how many
    /// fit.
    ///
    /// # Errors
    /// The body is no batch.
    pub fn remembered(&self, body: &[u8]) -> Result<usize, Refusal> {
        let batch = decode::decode(body, Shape::Batch, self.limits.batch)?;
        let Ok(workspace) = "ws_steps".parse() else {
            return Ok(0);
        };
        Ok(shapes::with(&workspace, &self.fixed, |shapes| {
            let fits = |event: &&&_| {
                let known = shapes.known(Value::from(**event));
                if known.is_none() {
                    shapes.learn(Value::from(**event));
                }
                event::prepare(event, known, Shape::Batch, &batch, self.terms()).is_ok()
            };
            batch.items().iter().filter(fits).count()
        }))
    }

    fn terms(&self) -> Terms<'_> {
        Terms {
            limits: &self.limits,
            clocks: &self.clocks,
            received_at: Timestamp::clamped_from_millis(0),
            is_import: false,
            aliases: &[],
            ip: IpPolicy::Keep,
        }
    }

    /// Decodes a batch and reads the fields of its events against the types that are known; says how many fit.
    ///
    /// # Errors
    /// The body is no batch.
    pub fn types(&self, body: &[u8]) -> Result<usize, Refusal> {
        let batch = decode::decode(body, Shape::Batch, self.limits.batch)?;
        let fits = |event: &&&_| {
            let said = types::read(Value::from(**event), Some("ann"), KeyKind::Server, &self.fixed);
            said.fits()
        };
        Ok(batch.items().iter().filter(fits).count())
    }
}
