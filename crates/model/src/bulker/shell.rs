//! One owner of one partition, and what every part of its work asks of it.

use std::collections::BTreeSet;

use millrace_ledger::{BadRow, Ledger};

use crate::control::Control;
use crate::executor::turn;
use crate::world::World;

/// Why the work on a partition ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// It belongs to somebody else now.
    Revoked,
    /// What the group holds is not known: the session ends.
    Session,
}

pub(super) struct Shell {
    pub(super) world: World,
    pub(super) partition: u32,
    pub(super) member: usize,
    pub(super) epoch: u64,
    pub(super) ledger: Ledger,
    /// What the plan should name and, under a control, does not.
    pub(super) unnamed_rows: BTreeSet<BadRow>,
    pub(super) unnamed_tables: BTreeSet<u8>,
}

impl Shell {
    pub(super) fn control(&self, control: Control) -> bool {
        self.world.control(control)
    }

    /// Whether the partition is still this owner's.
    pub(super) fn owns(&self) -> bool {
        let state = self.world.get();
        match state.control {
            Control::Membership => state.group.is_member(self.member),
            _ => state.group.of(self.partition).epoch == self.epoch,
        }
    }

    /// When the ownership was checked.
    pub(super) fn check(&self) -> Result<u64, End> {
        match self.owns() {
            true => Ok(self.world.get().now),
            false => Err(End::Revoked),
        }
    }

    /// Between two attempts at something.
    pub(super) async fn pause(&self) -> Result<(), End> {
        turn().await;
        self.check().map(|_| ())
    }

    pub(super) async fn kill(&self) -> Result<(), End> {
        while !self.world.kill(self.partition).await {
            self.pause().await?;
        }
        Ok(())
    }
}
