//! What every simulated client is: something that asks, and judges what it is answered. Knows no API.

use super::client::Context;
use super::model::{Life, Model, TopicRef};

/// A simulated client.
pub trait Actor {
    /// Asks something, if it likes to.
    fn act(&mut self, cx: &mut Context<'_>) -> Result<(), String>;

    /// Takes what was answered, and notices a lost connection.
    fn poll(&mut self, cx: &mut Context<'_>) -> Result<(), String>;

    /// Whether every question has its answer.
    fn is_quiet(&self) -> bool;

    /// Whether it knows how everything it asked ended; if not, it is to act on.
    fn is_settled(&self) -> bool {
        true
    }

    /// While the broker stops, what waits may be answered early.
    fn expect_stop(&mut self, _stopping: bool) {}

    /// Says who it is and what it waits for.
    fn describe(&self) -> String;
}

/// Whether a topic is not there for sure.
pub fn gone(model: &Model, topic: TopicRef) -> bool {
    model.topics[topic].life != Life::Live
}
