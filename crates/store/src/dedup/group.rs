//! What many requests want of the memory at the same moment, in few scripts: one per workspace and kind, all of
//! them in one pipeline.

use std::collections::BTreeMap;

use futures_util::future::join_all;

use super::{CHUNK, DONE, Dedup, Fingerprints, RELEASE, RESERVE, Reservation, Window, millis};
use crate::{Error, Part, WorkspaceId};

/// What is to be done with ids. The order is that of the scripts: a copy of what is done in the same moment is
/// a duplicate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Step {
    /// They are marked done, for the time of an event as it happens.
    DoneLive,
    /// For the time of history.
    DoneImport,
    /// They are given up.
    Release,
    /// They are reserved where nothing is known.
    Reserve,
}

impl From<Window> for Step {
    fn from(window: Window) -> Self {
        match window {
            Window::Live => Self::DoneLive,
            Window::Import => Self::DoneImport,
        }
    }
}

/// What one request wants.
#[derive(Debug)]
pub(super) struct Question {
    pub(super) workspace: WorkspaceId,
    pub(super) step: Step,
    pub(super) fingerprints: Fingerprints,
}

/// For [`Step::Reserve`] what is known about each id, for the others nothing.
pub(super) type Answer = Result<Vec<Reservation>, Error>;

/// What one kind of script is run over in one workspace.
#[derive(Default)]
struct Group {
    /// Whose ids they are, by the place of the question, and how many of whom.
    shares: Vec<(usize, usize)>,
    fingerprints: Fingerprints,
}

/// Asks everything at once; the answers are in the order of the questions.
pub(super) async fn ask(dedup: Dedup, questions: Vec<Question>) -> Vec<Answer> {
    let mut answers: Vec<Answer> = Vec::with_capacity(questions.len());
    answers.resize_with(questions.len(), || Ok(Vec::new()));
    let mut groups: BTreeMap<(Step, WorkspaceId), Group> = BTreeMap::new();
    for (place, question) in questions.into_iter().enumerate() {
        let group = groups.entry((question.step, question.workspace)).or_default();
        group.shares.push((place, question.fingerprints.len()));
        group.fingerprints.append(&question.fingerprints);
    }
    let scripts = groups
        .iter()
        .map(|((step, workspace), group)| run(&dedup, *step, workspace, &group.fingerprints));
    let known = join_all(scripts).await;
    for (Group { shares, .. }, known) in groups.into_values().zip(known) {
        match known {
            Ok(known) => {
                let mut known = known.into_iter();
                for (place, share) in shares {
                    if let Some(answer) = answers.get_mut(place) {
                        *answer = Ok(known.by_ref().take(share).collect());
                    }
                }
            }
            Err(error) => {
                for (place, _) in shares {
                    if let Some(answer) = answers.get_mut(place) {
                        *answer = Err(error.copy());
                    }
                }
            }
        }
    }
    answers
}

/// Runs one kind of script over the ids of one workspace, [`CHUNK`] of them at a time.
async fn run(dedup: &Dedup, step: Step, workspace: &WorkspaceId, fingerprints: &Fingerprints) -> Answer {
    let mut all = Vec::new();
    for fingerprints in fingerprints.chunks(CHUNK) {
        let (script, first) = match step {
            Step::Reserve => {
                let first = vec![dedup.owner(&dedup.run), millis(dedup.config.pending)];
                let answer: Vec<String> = dedup
                    .run_packed(&RESERVE, workspace, &dedup.run, first, &fingerprints)
                    .await?;
                let known = dedup.reservations(&answer)?;
                if known.len() != fingerprints.len() {
                    return Err(Error::Corrupt {
                        part: Part::Redis,
                        what: "the answer to a reservation",
                    });
                }
                all.extend(known);
                continue;
            }
            Step::DoneLive => (&DONE, dedup.lifetime(Window::Live)),
            Step::DoneImport => (&DONE, dedup.lifetime(Window::Import)),
            Step::Release => (&RELEASE, dedup.owner(&dedup.run)),
        };
        let _: i64 = dedup
            .run_packed(script, workspace, &dedup.run, vec![first], &fingerprints)
            .await?;
    }
    Ok(all)
}
