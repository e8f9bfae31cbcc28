//! The alarms of all groups of a core in one ordered queue. A heartbeat only moves a member's due time;
//! the queue learns of it when the earlier entry comes up. Knows no clock and no group, only who asked.

use std::collections::BTreeMap;
use std::rc::Rc;

/// Who wants to be woken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Timer {
    /// A member, or a member id that was handed out and not used yet, is to be heard from.
    Session {
        partition: i32,
        group: Rc<str>,
        member: Rc<str>,
    },
    /// The join phase of a group is to end.
    Join { partition: i32, group: Rc<str> },
    /// The sync phase of a group is to end.
    Sync { partition: i32, group: Rc<str> },
}

/// The queue, by due time in monotonic microseconds.
#[derive(Debug, Default)]
pub(crate) struct Timers {
    queue: BTreeMap<(u64, u64), Timer>,
    sequence: u64,
}

impl Timers {
    fn push(&mut self, due_us: u64, timer: Timer) {
        self.sequence += 1;
        self.queue.insert((due_us, self.sequence), timer);
    }

    pub(crate) fn next_due_us(&self) -> Option<u64> {
        self.queue.first_key_value().map(|((due_us, _), _)| *due_us)
    }

    pub(crate) fn pop_due(&mut self, now_us: u64) -> Option<(u64, Timer)> {
        let entry = self.queue.first_entry()?;
        let due_us = entry.key().0;
        (due_us <= now_us).then(|| (due_us, entry.remove()))
    }
}

/// When its owner wants to be woken. At most one entry of the queue counts for it: `queued_us`.
#[derive(Debug, Default)]
pub(crate) struct Alarm {
    due_us: Option<u64>,
    queued_us: Option<u64>,
}

impl Alarm {
    pub(crate) fn set(&mut self, due_us: u64, timers: &mut Timers, timer: impl FnOnce() -> Timer) {
        self.due_us = Some(due_us);
        if self.queued_us.is_none_or(|queued_us| queued_us > due_us) {
            self.queued_us = Some(due_us);
            timers.push(due_us, timer());
        }
    }

    pub(crate) fn clear(&mut self) {
        self.due_us = None;
    }

    /// An entry of the queue that was due at `entry_us` came up: is the alarm to go off?
    pub(crate) fn rings(&mut self, entry_us: u64, timers: &mut Timers, timer: &Timer) -> bool {
        if self.queued_us != Some(entry_us) {
            return false;
        }
        self.queued_us = None;
        match self.due_us {
            Some(due_us) if due_us <= entry_us => {
                self.due_us = None;
                true
            }
            Some(due_us) => {
                self.set(due_us, timers, || timer.clone());
                false
            }
            None => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn timer() -> Timer {
        Timer::Join {
            partition: 0,
            group: "g".into(),
        }
    }

    /// The times at which the alarm goes off.
    fn rings(alarm: &mut Alarm, timers: &mut Timers, until_us: u64) -> Vec<u64> {
        let mut rung = Vec::new();
        while let Some((due_us, timer)) = timers.pop_due(until_us) {
            if alarm.rings(due_us, timers, &timer) {
                rung.push(due_us);
            }
        }
        rung
    }

    #[test]
    fn a_later_due_time_costs_no_entry_and_still_rings_then() {
        let (mut alarm, mut timers) = (Alarm::default(), Timers::default());
        for due_us in [10, 20, 30] {
            alarm.set(due_us, &mut timers, timer);
        }
        assert_eq!(timers.queue.len(), 1);
        assert!(rings(&mut alarm, &mut timers, 29).is_empty());
        assert_eq!(timers.next_due_us(), Some(30));
        assert_eq!(rings(&mut alarm, &mut timers, 30), [30]);
        assert_eq!(timers.next_due_us(), None);
    }

    #[test]
    fn an_earlier_due_time_rings_once() {
        let (mut alarm, mut timers) = (Alarm::default(), Timers::default());
        alarm.set(30, &mut timers, timer);
        alarm.set(10, &mut timers, timer);
        assert_eq!(rings(&mut alarm, &mut timers, 15), [10]);
        alarm.set(30, &mut timers, timer);
        assert_eq!(rings(&mut alarm, &mut timers, 40), [30]);
    }

    #[test]
    fn a_cleared_alarm_is_silent_and_can_be_set_again() {
        let (mut alarm, mut timers) = (Alarm::default(), Timers::default());
        alarm.set(10, &mut timers, timer);
        alarm.clear();
        alarm.set(12, &mut timers, timer);
        alarm.clear();
        assert!(rings(&mut alarm, &mut timers, 50).is_empty());
        alarm.set(60, &mut timers, timer);
        assert_eq!(rings(&mut alarm, &mut timers, 60), [60]);
    }
}
