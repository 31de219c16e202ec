//! What must always hold, one file each. To add one: a file here, a line in [`all`], and a test in its file of a history that it
//! must refuse.

mod acknowledged_kept;
mod answered_once;
mod applied_once;
mod epochs_forward;
mod frames_forward;
mod given_kept;
mod items_unique;
mod names_unique;
mod one_folder;
mod one_leader;
mod one_place;
mod own_writes;
mod reads_current;
mod replicas_agree;
mod replies_in_order;
mod same_entry;
mod served_again;
mod served_at_end;
mod within_bounds;

use crate::fact::Fact;

/// A property of the whole run.
pub trait Invariant {
    /// As it stands in reports.
    fn name(&self) -> &'static str;

    /// Takes a fact in; an error says what was found and what was expected.
    fn hear(&mut self, fact: &Fact) -> Result<(), String>;

    /// The last word, after the final facts.
    fn conclude(&mut self) -> Result<(), String> {
        Ok(())
    }
}

/// Every invariant, at its beginning. Those whose facts a scenario does not tell hold trivially.
#[must_use]
pub fn all() -> Vec<Box<dyn Invariant>> {
    vec![
        Box::<one_leader::OneLeader>::default(),
        Box::<one_folder::OneFolder>::default(),
        Box::<same_entry::SameEntry>::default(),
        Box::<replicas_agree::ReplicasAgree>::default(),
        Box::<reads_current::ReadsCurrent>::default(),
        Box::<acknowledged_kept::AcknowledgedKept>::default(),
        Box::<answered_once::AnsweredOnce>::default(),
        Box::<applied_once::AppliedOnce>::default(),
        Box::<frames_forward::FramesForward>::default(),
        Box::<replies_in_order::RepliesInOrder>::default(),
        Box::<given_kept::GivenKept>::default(),
        Box::<items_unique::ItemsUnique>::default(),
        Box::<epochs_forward::EpochsForward>::default(),
        Box::<own_writes::OwnWrites>::default(),
        Box::<names_unique::NamesUnique>::default(),
        Box::<one_place::OnePlace>::default(),
        Box::<within_bounds::WithinBounds>::default(),
        Box::<served_again::ServedAgain>::default(),
        Box::<served_at_end::ServedAtEnd>::default(),
    ]
}

#[cfg(test)]
pub(crate) mod testing {
    use std::time::Duration;

    use super::*;
    use crate::interpose;

    /// What the invariant says of a whole history.
    pub(crate) fn verdict(mut invariant: impl Invariant, history: &[Fact]) -> Result<(), String> {
        for fact in history {
            invariant.hear(fact)?;
        }
        invariant.conclude()
    }

    /// The same of a history of which every fact has its time.
    pub(crate) fn verdict_at(mut invariant: impl Invariant, history: &[(Duration, Fact)]) -> Result<(), String> {
        for (at, fact) in history {
            interpose::set_driver_time(*at);
            invariant.hear(fact)?;
        }
        invariant.conclude()
    }
}
