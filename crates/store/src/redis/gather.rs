//! Calls that are ready at the same moment go out together: a gateway with a hundred requests at hand asks once.
//!
//! Nobody waits for company. The first call has a task send what there is; until that task's turn comes, which is
//! after whatever else is ready to run, others may join. Calls under way do not hold up the next ones.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::oneshot;

/// Questions of one kind, on their way. Clones share them.
///
/// It holds as many as callers wait for an answer; whoever bounds those bounds it.
pub(crate) struct Gather<Q, A> {
    waiting: Arc<Mutex<Waiting<Q, A>>>,
}

type Waiting<Q, A> = Vec<(Q, oneshot::Sender<A>)>;

impl<Q, A> Clone for Gather<Q, A> {
    fn clone(&self) -> Self {
        Self {
            waiting: Arc::clone(&self.waiting),
        }
    }
}

impl<Q, A> Default for Gather<Q, A> {
    fn default() -> Self {
        Self {
            waiting: Arc::default(),
        }
    }
}

impl<Q, A> std::fmt::Debug for Gather<Q, A> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gather").finish_non_exhaustive()
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
        M: FnOnce(Vec<Q>) -> F + Send + 'static,
        F: Future<Output = Vec<A>> + Send,
    {
        let (sender, answer) = oneshot::channel();
        let is_first = {
            let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
            waiting.push((question, sender));
            waiting.len() == 1
        };
        if is_first {
            let (waiting, ask) = (Arc::clone(&self.waiting), make());
            drop(tokio::spawn(async move {
                tokio::task::yield_now().await;
                let together = std::mem::take(&mut *waiting.lock().unwrap_or_else(PoisonError::into_inner));
                let (questions, senders): (Vec<_>, Vec<_>) = together.into_iter().unzip();
                for (answer, sender) in ask(questions).await.into_iter().zip(senders) {
                    // Whoever asked may have gone away.
                    drop(sender.send(answer));
                }
            }));
        }
        answer.await.ok()
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
}
