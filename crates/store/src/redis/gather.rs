//! Calls that are ready at the same moment go out together: a gateway with a hundred requests at hand asks once.
//!
//! Nobody waits for company that may never come. The first call has a task send what there is; until that task's turn
//! comes, which is after whatever else is ready to run, others may join. While an answer is on its way the next group
//! forms and goes when it is there, or after [`HOLD`]: the busier the process, the more share a call.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;

/// How long a group waits for the answer to the one before it.
const HOLD: Duration = Duration::from_millis(5);

/// Questions of one kind, on their way. Clones share them.
///
/// It holds as many as callers wait for an answer; whoever bounds those bounds it.
pub(crate) struct Gather<Q, A> {
    shared: Arc<Mutex<Shared<Q, A>>>,
}

struct Shared<Q, A> {
    waiting: Vec<(Q, oneshot::Sender<A>)>,
    /// Whether a task sees to those that wait.
    is_served: bool,
}

impl<Q, A> Clone for Gather<Q, A> {
    fn clone(&self) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
        }
    }
}

impl<Q, A> Default for Gather<Q, A> {
    fn default() -> Self {
        let shared = Shared {
            waiting: Vec::new(),
            is_served: false,
        };
        Self {
            shared: Arc::new(Mutex::new(shared)),
        }
    }
}

impl<Q, A> std::fmt::Debug for Gather<Q, A> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gather").finish_non_exhaustive()
    }
}

impl<Q, A> Gather<Q, A> {
    fn lock(&self) -> MutexGuard<'_, Shared<Q, A>> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<Q: Send + 'static, A: Send + 'static> Gather<Q, A> {
    /// Asks `question` together with others. The first of them makes what asks, which gives an answer for each, in
    /// their order. None when the runtime ends before that.
    ///
    /// # Cancellation
    /// A question that was asked takes effect although its future is dropped.
    pub(crate) async fn call<M, F>(&self, question: Q, make: impl FnOnce() -> M) -> Option<A>
    where
        M: Fn(Vec<Q>) -> F + Send + 'static,
        F: Future<Output = Vec<A>> + Send + 'static,
    {
        let (sender, answer) = oneshot::channel();
        let is_first = {
            let mut shared = self.lock();
            shared.waiting.push((question, sender));
            !std::mem::replace(&mut shared.is_served, true)
        };
        if is_first {
            let (serving, ask) = (Serving(self.clone()), make());
            drop(tokio::spawn(async move {
                while let Some((questions, senders)) = serving.next().await {
                    let mut asked = Box::pin(ask(questions));
                    match tokio::time::timeout(HOLD, &mut asked).await {
                        Ok(answers) => deliver(answers, senders),
                        // What hangs holds up nobody else.
                        Err(_) => drop(tokio::spawn(async move { deliver(asked.await, senders) })),
                    }
                }
            }));
        }
        answer.await.ok()
    }
}

fn deliver<A>(answers: Vec<A>, senders: Vec<oneshot::Sender<A>>) {
    for (answer, sender) in answers.into_iter().zip(senders) {
        // Whoever asked may have gone away.
        drop(sender.send(answer));
    }
}

/// The task that serves. Were it to end early, those that wait would hear so, and the next call starts another.
struct Serving<Q, A>(Gather<Q, A>);

impl<Q, A> Serving<Q, A> {
    /// All that wait, once whatever is ready to run has had its turn; none where nobody does, and serving ends.
    async fn next(&self) -> Option<(Vec<Q>, Vec<oneshot::Sender<A>>)> {
        tokio::task::yield_now().await;
        let together = {
            let mut shared = self.0.lock();
            shared.is_served = !shared.waiting.is_empty();
            std::mem::take(&mut shared.waiting)
        };
        (!together.is_empty()).then(|| together.into_iter().unzip())
    }
}

impl<Q, A> Drop for Serving<Q, A> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let mut shared = self.0.lock();
            shared.is_served = false;
            shared.waiting.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn calls_that_are_ready_together_are_asked_together_and_each_gets_its_own_answer() {
        let gather = Gather::<u32, (u32, usize)>::default();
        let ask = |questions: Vec<u32>| async move {
            let together = questions.len();
            questions
                .into_iter()
                .map(|question| (question * 2, together))
                .collect()
        };
        let calls = (0..50).map(|question| gather.call(question, || ask));
        let answers = futures_util::future::join_all(calls).await;
        for (question, answer) in (0..).zip(answers) {
            assert_eq!(answer, Some((question * 2, 50)));
        }
        assert_eq!(
            gather.call(7, || ask).await,
            Some((14, 1)),
            "and one that is alone goes alone"
        );
    }

    #[tokio::test]
    async fn what_comes_while_an_answer_is_on_its_way_goes_together_and_is_not_held_up_by_one_that_hangs() {
        let gather = Gather::<bool, usize>::default();
        let answered = Arc::new(tokio::sync::Notify::new());
        let ask = {
            let answered = Arc::clone(&answered);
            move |questions: Vec<bool>| {
                let answered = Arc::clone(&answered);
                async move {
                    if questions.contains(&true) {
                        answered.notified().await;
                    }
                    vec![questions.len(); questions.len()]
                }
            }
        };
        let hanging = tokio::spawn({
            let (gather, ask) = (gather.clone(), ask.clone());
            async move { gather.call(true, || ask).await }
        });
        let is_away = || {
            let shared = gather.lock();
            shared.is_served && shared.waiting.is_empty()
        };
        while !is_away() {
            tokio::task::yield_now().await;
        }
        let calls = (0..3).map(|_| gather.call(false, || ask.clone()));
        assert_eq!(futures_util::future::join_all(calls).await, [Some(3); 3]);
        answered.notify_one();
        assert_eq!(hanging.await.ok(), Some(Some(1)), "and what hung is answered");
    }

    #[tokio::test]
    async fn where_asking_panics_those_who_wait_hear_so_and_the_next_call_is_asked() {
        let gather = Gather::<bool, ()>::default();
        let ask = |questions: Vec<bool>| async move {
            assert!(questions.iter().all(|sound| *sound), "not sound");
            vec![(); questions.len()]
        };
        assert_eq!(gather.call(false, || ask).await, None);
        while gather.lock().is_served {
            tokio::task::yield_now().await;
        }
        assert_eq!(gather.call(true, || ask).await, Some(()));
    }
}
