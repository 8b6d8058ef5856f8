//! The last steps of the pipeline for all requests that wait at the same moment: one call to Redis, one append, and one
//! more turn for the marks.
//!
//! Nobody waits for company that may never come. The first request has a task serve; until that task's turn comes, which
//! is after whatever else is ready to run, others may join. While a group is on its way the next one forms: one is at the
//! journal, one waits for it with its ids reserved, and what comes meanwhile is the third, so that groups are as large as
//! the disk is slow. What a group of the slow kind needs, a copy's outcome or fields that nobody knows, is waited for
//! in a task of its own.
//!
//! On the way are at most [`ROOM`] bytes of events; requests beyond that wait in front, their bodies counted as before.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::join_all;
use millrace_service::failpoint;
use millrace_store::WorkspaceId;
use millrace_store::admission::{self, Admitted, ROUND, Round};
use millrace_store::dedup::{Fingerprint, Reservation, Window};
use millrace_store::limits::Rate;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::time::timeout;
use tokio_util::task::TaskTracker;

use super::Refusal;
use super::acceptance::{Acceptance, Candidate, Counts, Reply, Work, answers_first, refusal_of};
use super::limit::beyond;
use crate::journal::{AppendError, Entry};

/// Most bytes of events between the pipeline's door and their answers.
const ROOM: usize = 64 << 20;
/// In which they are counted.
const PIECE: usize = 1024;
/// A group takes no further request beyond this many bytes.
const GROUP: usize = 1 << 20;
/// Groups behind their call to Redis whose append is not done.
const AHEAD: usize = 2;
/// How long a group waits for the answer of Redis to the one before it.
const HOLD: Duration = Duration::from_millis(5);
/// How long marks wait for requests to go with.
const LINGER: Duration = Duration::from_millis(5);
/// Behind a group of so many requests the next one waits for three quarters as many: those who were answered ask again.
const COMPANY: usize = 16;
/// How long it does, at most. Once it has waited in vain the next one goes at once.
const PATIENCE: Duration = Duration::from_millis(1);

/// Takes requests to their end together.
#[derive(Clone, Debug)]
pub(crate) struct Groups(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    acceptance: Arc<Acceptance>,
    waiting: Mutex<Waiting>,
    /// Told when a request comes while only marks wait.
    came: Notify,
    room: Arc<Semaphore>,
    ahead: Arc<Semaphore>,
    /// Whatever is under way, whoever still waits for it.
    tasks: TaskTracker,
}

#[derive(Debug, Default)]
struct Waiting {
    works: std::collections::VecDeque<Work>,
    marks: Vec<Mark>,
    /// Whether a task sees to them.
    is_served: bool,
    /// How many requests that task waits for, where it does.
    rests: Option<usize>,
    /// How many requests the next group should have.
    company: usize,
}

/// Ids whose events are in the journal.
#[derive(Debug)]
struct Mark {
    workspace: WorkspaceId,
    window: Window,
    ids: Vec<Fingerprint>,
}

/// What goes to Redis together.
#[derive(Debug)]
struct Group {
    works: Vec<Work>,
    marks: Vec<Mark>,
}

/// What goes to the journal together: requests, and for each what it brings.
#[derive(Debug, Default)]
struct Append {
    requests: Vec<Ready>,
    entries: Vec<Vec<Entry>>,
}

/// The part of a group that one script is for.
#[derive(Debug)]
struct Share {
    workspace: WorkspaceId,
    rate: Rate,
    round: Round,
    works: Vec<Work>,
    marks: Vec<Mark>,
}

/// A request whose events all fit and are reserved.
#[derive(Debug)]
struct Ready {
    workspace: WorkspaceId,
    window: Window,
    ids: Vec<Fingerprint>,
    counts: Counts,
    reply: Option<Reply>,
}

impl Groups {
    pub(crate) fn new(acceptance: Arc<Acceptance>, tasks: TaskTracker) -> Self {
        Self(Arc::new(Shared {
            acceptance,
            waiting: Mutex::default(),
            came: Notify::new(),
            room: Arc::new(Semaphore::new(ROOM / PIECE)),
            ahead: Arc::new(Semaphore::new(AHEAD)),
            tasks,
        }))
    }

    /// Takes candidates of one request through the last steps; `charge` is with how many events its workspace is still to
    /// be charged.
    ///
    /// # Errors
    /// When the request is refused.
    ///
    /// # Cancellation
    /// Once there was room for them they are taken, heard or unheard.
    pub(super) async fn accept(
        &self,
        key: Arc<millrace_store::keys::Key>,
        window: Window,
        candidates: Vec<Candidate>,
        charge: Option<usize>,
    ) -> Result<Counts, Refusal> {
        let pieces = u32::try_from(size_of(&candidates).div_ceil(PIECE).clamp(1, ROOM / PIECE));
        let room = Arc::clone(&self.0.room)
            .acquire_many_owned(pieces.unwrap_or(1))
            .await;
        let room = room.map_err(|_| Refusal::draining())?;
        let (sender, answer) = oneshot::channel();
        self.enter(Work {
            key,
            window,
            candidates,
            charge,
            reply: Reply { sender, room },
        });
        answer.await.unwrap_or_else(|_| Err(Refusal::draining()))
    }

    fn enter(&self, work: Work) {
        let shared = &self.0;
        // One that is a group by itself, or whose answer waits for Kafka, holds up nobody.
        if work.candidates.len() > ROUND || shared.acceptance.kafka.is_some() {
            let alone = Arc::clone(&shared.acceptance).accept(work);
            shared.tasks.spawn(Box::pin(alone));
            return;
        }
        let mut waiting = shared.lock();
        waiting.works.push_back(work);
        shared.serve_with(waiting);
    }
}

fn size_of(candidates: &[Candidate]) -> usize {
    let size = |entry: &Entry| entry.key.len() + entry.headers.size() + entry.value.len();
    candidates.iter().map(|candidate| size(&candidate.entry)).sum()
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sees to it that what waits is served.
    fn serve_with(self: &Arc<Self>, mut waiting: MutexGuard<'_, Waiting>) {
        let is_served = std::mem::replace(&mut waiting.is_served, true);
        let wakes = waiting.rests.is_some_and(|wanted| waiting.works.len() >= wanted);
        if wakes {
            waiting.rests = None;
        }
        drop(waiting);
        if !is_served {
            self.tasks.spawn(Box::pin(serve(Serving(Arc::clone(self)))));
        } else if wakes {
            self.came.notify_one();
        }
    }

    /// The next group, once whatever is ready to run has had its turn and a group under load has come together, and leave
    /// to append behind it; none where nothing waits, and serving ends.
    async fn next(&self) -> Option<(Group, Option<OwnedSemaphorePermit>)> {
        let mut lingered = false;
        loop {
            tokio::task::yield_now().await;
            // Never closed.
            let ahead = Arc::clone(&self.ahead).acquire_owned().await.ok();
            let pause = {
                let mut waiting = self.lock();
                waiting.rests = None;
                let (works, marks) = (waiting.works.len(), waiting.marks.len());
                if works + marks == 0 {
                    waiting.is_served = false;
                    return None;
                }
                let comes = works >= waiting.company.max(1);
                if comes || lingered {
                    let group = waiting.take();
                    let count = group.works.len();
                    waiting.company = if comes && count >= COMPANY {
                        count * 3 / 4
                    } else {
                        0
                    };
                    return Some((group, ahead));
                }
                let (wanted, pause) = match works {
                    0 => (1, LINGER),
                    _ => (waiting.company, PATIENCE),
                };
                waiting.rests = Some(wanted);
                pause
            };
            drop(ahead);
            lingered = timeout(pause, self.came.notified()).await.is_err();
        }
    }

    /// Charges, reserves and marks; what may go on to the journal goes, and what has to wait does so by itself.
    async fn ask(self: Arc<Self>, group: Group) -> Append {
        let shares = shared(group.works, group.marks);
        let dedup = &self.acceptance.dedup;
        let asked = shares
            .iter()
            .map(|share| admission::admit(dedup, &share.workspace, share.rate, &share.round));
        let answers = join_all(asked).await;
        let mut append = Append::default();
        for (share, answer) in shares.into_iter().zip(answers) {
            match answer {
                Ok(admitted) => {
                    for (work, admitted) in share.works.into_iter().zip(admitted) {
                        match admitted {
                            Admitted::Refused { reset } => work.reply.send(Err(beyond(reset))),
                            Admitted::Taken(known) => {
                                self.go_on(work, known, &mut append);
                            }
                        }
                    }
                }
                Err(error) => {
                    tracing::debug!(%error, "requests go on without redis");
                    for mark in share.marks {
                        let acceptance = Arc::clone(&self.acceptance);
                        self.tasks.spawn(async move {
                            acceptance.mark(&mark.workspace, mark.window, &mark.ids).await;
                        });
                    }
                    for mut work in share.works {
                        let charged = work.charge.map_or(Ok(()), |events| {
                            self.acceptance.rates.charge_alone(&work.key, events, &error)
                        });
                        if let Err(refusal) = charged {
                            work.reply.send(Err(refusal));
                            continue;
                        }
                        let all = work.candidates.len();
                        let fresh = self.acceptance.unreserved(std::mem::take(&mut work.candidates));
                        self.keep(work, all, fresh, &mut append);
                    }
                }
            }
        }
        append
    }

    /// One request of whose ids `known` is known.
    fn go_on(&self, mut work: Work, known: Vec<Reservation>, append: &mut Append) {
        let pending =
            |known: &Reservation| matches!(known, Reservation::PendingOwn | Reservation::PendingOther(_));
        if known.iter().any(pending) {
            let waits = Arc::clone(&self.acceptance).accept_known(work, known);
            self.tasks.spawn(Box::pin(waits));
            return;
        }
        let all = work.candidates.len();
        let fresh = std::mem::take(&mut work.candidates).into_iter().zip(known);
        let fresh = fresh.filter(|(_, known)| *known == Reservation::Reserved);
        let fresh = fresh.map(|(candidate, _)| candidate).collect();
        self.keep(work, all, fresh, append);
    }

    /// One request of which `fresh` go to the journal, of `all` its events: with the group where that is all that is left
    /// to do.
    fn keep(&self, work: Work, all: usize, fresh: Vec<Candidate>, append: &mut Append) {
        let Work {
            key, window, reply, ..
        } = work;
        if !fresh.iter().all(|candidate| candidate.said.fits()) {
            let acceptance = Arc::clone(&self.acceptance);
            self.tasks.spawn(Box::pin(async move {
                acceptance.accept_fresh(&key, window, all, fresh, reply).await;
            }));
            return;
        }
        let counts = Counts {
            accepted: fresh.len(),
            duplicates: all - fresh.len(),
            rejected: Vec::new(),
        };
        let mut reply = Some(reply);
        if answers_first()
            && let Some(reply) = reply.take()
        {
            reply.send(Ok(counts.clone()));
        }
        let (ids, kept) = fresh
            .into_iter()
            .map(|candidate| (candidate.fingerprint, candidate.entry))
            .unzip();
        append.entries.push(kept);
        append.requests.push(Ready {
            workspace: key.workspace.clone(),
            window,
            ids,
            counts,
            reply,
        });
    }

    /// Appends what requests bring, answers them, and has their ids marked.
    async fn append(self: Arc<Self>, append: Append, ahead: Option<OwnedSemaphorePermit>) {
        let appended = self.acceptance.journal.append_each(append.entries).await;
        drop(ahead);
        let mut marks: Vec<Mark> = Vec::new();
        for (request, appended) in append.requests.into_iter().zip(appended) {
            if let Err(error) = appended {
                self.refuse(request, error);
                continue;
            }
            self.acceptance.count(&request.counts);
            if let Some(reply) = request.reply {
                reply.send(Ok(request.counts));
            }
            if request.ids.is_empty() {
                continue;
            }
            match marks.last_mut() {
                Some(last) if last.workspace == request.workspace && last.window == request.window => {
                    last.ids.extend(request.ids);
                }
                _ => marks.push(Mark {
                    workspace: request.workspace,
                    window: request.window,
                    ids: request.ids,
                }),
            }
        }
        if marks.is_empty() {
            return;
        }
        failpoint!(async "ingest::before_mark");
        let mut waiting = self.lock();
        waiting.marks.append(&mut marks);
        self.serve_with(waiting);
    }

    fn refuse(&self, request: Ready, error: AppendError) {
        let acceptance = Arc::clone(&self.acceptance);
        self.tasks.spawn(async move {
            acceptance.give_up(&request.workspace, &request.ids, error).await;
            if let Some(reply) = request.reply {
                reply.send(Err(refusal_of(error)));
            }
        });
    }
}

impl Waiting {
    /// Requests up to the bounds of a group, one at least where there is one, and marks up to theirs.
    fn take(&mut self) -> Group {
        let (mut ids, mut bytes) = (0, 0);
        let mut count = 0;
        for work in &self.works {
            ids += work.candidates.len();
            bytes += work.reply.room.num_permits() * PIECE;
            if count > 0 && (ids > ROUND || bytes > GROUP) {
                break;
            }
            count += 1;
        }
        let (mut ids, mut marks) = (0, 0);
        for mark in &self.marks {
            ids += mark.ids.len();
            if marks > 0 && ids > ROUND {
                break;
            }
            marks += 1;
        }
        Group {
            works: self.works.drain(..count).collect(),
            marks: self.marks.drain(..marks).collect(),
        }
    }
}

/// Parts a group by workspace.
fn shared(works: Vec<Work>, marks: Vec<Mark>) -> Vec<Share> {
    let mut shares: Vec<Share> = Vec::with_capacity(1);
    let mut last = 0;
    for work in works {
        let rate = Rate::of(work.key.tier, &work.key.limits);
        let own = |share: &Share| share.workspace == work.key.workspace && share.rate == rate;
        if !shares.get(last).is_some_and(own) {
            last = shares.iter().position(own).unwrap_or(shares.len());
        }
        if last == shares.len() {
            shares.push(Share::new(work.key.workspace.clone(), rate));
        }
        if let Some(share) = shares.get_mut(last) {
            let events = u64::try_from(work.charge.unwrap_or(0)).unwrap_or(u64::MAX);
            let ids = work.candidates.iter().map(|candidate| candidate.fingerprint);
            share.round.request(events, ids);
            share.works.push(work);
        }
    }
    for mark in marks {
        let own = |share: &Share| share.workspace == mark.workspace;
        let place = shares.iter().position(own).unwrap_or(shares.len());
        if place == shares.len() {
            shares.push(Share::new(mark.workspace.clone(), Rate::NONE));
        }
        if let Some(share) = shares.get_mut(place) {
            share.round.done(mark.window, &mark.ids);
            share.marks.push(mark);
        }
    }
    shares
}

impl Share {
    fn new(workspace: WorkspaceId, rate: Rate) -> Self {
        Self {
            workspace,
            rate,
            round: Round::default(),
            works: Vec::new(),
            marks: Vec::new(),
        }
    }
}

async fn serve(serving: Serving) {
    let shared = &serving.0;
    while let Some((group, ahead)) = shared.next().await {
        let mut asked = Box::pin(Arc::clone(shared).ask(group));
        let this = Arc::clone(shared);
        match timeout(HOLD, &mut asked).await {
            Ok(append) if append.requests.is_empty() => {}
            Ok(append) => drop(shared.tasks.spawn(this.append(append, ahead))),
            // What hangs holds up nobody else.
            Err(_) => drop(
                shared
                    .tasks
                    .spawn(async move { this.append(asked.await, None).await }),
            ),
        }
    }
}

/// The task that serves. Were it to end early, those that wait would hear so, and the next request starts another.
struct Serving(Arc<Shared>);

impl Drop for Serving {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let mut waiting = self.0.lock();
            waiting.is_served = false;
            waiting.works.clear();
        }
    }
}
