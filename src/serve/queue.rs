//! Jobs in the order in which they were accepted.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, PoisonError};

use crate::serve::work::Job;

/// The jobs that wait. What there may be is bounded by their permits.
#[derive(Default)]
pub(super) struct Queue {
    jobs: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Job>,
    closed: bool,
}

impl Queue {
    /// Adds a job at the end; what nobody waits for any more is dropped.
    pub(super) fn push(&self, job: Job) {
        let mut state = self.jobs.lock().unwrap_or_else(PoisonError::into_inner);
        state.waiting.retain(|job| !job.reply.is_closed());
        state.waiting.push_back(job);
        self.changed.notify_one();
    }

    /// Drops what nobody waits for any more.
    pub(super) fn prune(&self) {
        let mut state = self.jobs.lock().unwrap_or_else(PoisonError::into_inner);
        state.waiting.retain(|job| !job.reply.is_closed());
    }

    /// The number of jobs that wait.
    pub(super) fn len(&self) -> usize {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner).waiting.len()
    }

    /// No job follows: [`next`](Self::next) answers none once all are taken, or at once where they are `dropped`.
    pub(super) fn close(&self, dropped: bool) {
        let mut state = self.jobs.lock().unwrap_or_else(PoisonError::into_inner);
        state.closed = true;
        if dropped {
            state.waiting.clear();
        }
        drop(state);
        self.changed.notify_all();
    }

    /// The first job, with those that wait and may share its passes, in their order, `most` of the first at most. Waits
    /// for one; none when there are no more to come.
    pub(super) fn next(&self, most: impl Fn(&Job) -> usize, shares: impl Fn(&Job, &Job) -> bool) -> Option<Vec<Job>> {
        let mut state = self.jobs.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            while let Some(first) = state.waiting.pop_front() {
                if first.reply.is_closed() {
                    continue;
                }
                let most = most(&first);
                let mut group = vec![first];
                let mut at = 0;
                while group.len() < most && at < state.waiting.len() {
                    if !state.waiting[at].reply.is_closed() && shares(&group[0], &state.waiting[at]) {
                        group.extend(state.waiting.remove(at));
                    } else {
                        at += 1;
                    }
                }
                return Some(group);
            }
            if state.closed {
                return None;
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}
