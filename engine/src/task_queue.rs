//! The tasks of one core's shard: waiting to be started beside the serving loop, and done. Lives on
//! that core, between its traffic and its executor; knows neither.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;

use crate::event::{Task, TaskDone};

/// Tasks to be run beside the serving loop, and what they report.
#[derive(Clone, Default)]
pub struct TaskQueue {
    inner: Rc<RefCell<TaskQueueInner>>,
}

#[derive(Default)]
struct TaskQueueInner {
    to_start: VecDeque<Task>,
    done: VecDeque<TaskDone>,
    open_count: usize,
}

impl TaskQueue {
    /// The next task to start.
    pub fn next(&self) -> Option<Task> {
        self.inner.borrow_mut().to_start.pop_front()
    }

    /// Reports a task that was started.
    pub fn finish(&self, done: TaskDone) {
        let mut inner = self.inner.borrow_mut();
        inner.open_count -= 1;
        inner.done.push_back(done);
    }

    /// Tasks that have not reported.
    pub fn open_count(&self) -> usize {
        self.inner.borrow().open_count
    }

    pub(crate) fn push(&self, task: Task) {
        let mut inner = self.inner.borrow_mut();
        inner.open_count += 1;
        inner.to_start.push_back(task);
    }

    pub(crate) fn take_done(&self) -> Option<TaskDone> {
        self.inner.borrow_mut().done.pop_front()
    }

    pub(crate) fn has_done(&self) -> bool {
        !self.inner.borrow().done.is_empty()
    }
}
