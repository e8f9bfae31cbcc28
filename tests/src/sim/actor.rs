//! What every simulated client is: something that asks, and judges what it is answered. Knows no API.

use super::client::{Answer, Client, Context};
use super::model::{Life, Model, TopicRef};
use super::world::World;

/// A simulated client.
pub trait Actor {
    /// Asks something, if it likes to.
    fn act(&mut self, cx: &mut Context<'_>) -> Result<(), String>;

    /// Takes what was answered, and notices a lost connection.
    fn poll(&mut self, cx: &mut Context<'_>) -> Result<(), String>;

    /// Whether every question has its answer.
    fn is_quiet(&self) -> bool;

    /// The question that should have been answered by now, if there is one.
    fn overdue(&self, world: &World) -> Option<String>;

    /// Whether it knows how everything it asked ended; if not, it is to act on.
    fn is_settled(&self) -> bool {
        true
    }

    /// While the broker stops, what waits may be answered early.
    fn expect_stop(&mut self, _stopping: bool) {}

    /// Says who it is and what it waits for.
    fn describe(&self) -> String;
}

/// A simulated client with one connection, to which the loss of it means only that its questions stay
/// open: it keeps nothing that a lost answer could make wrong.
pub trait Asker {
    /// What it remembers of a question.
    type Asked;

    /// What it is called in failures.
    const NAME: &str;

    /// Its connection.
    fn client(&self) -> &Client<Self::Asked>;

    /// Its connection, to take answers from.
    fn client_mut(&mut self) -> &mut Client<Self::Asked>;

    /// Asks something, if it likes to.
    fn ask(&mut self, cx: &mut Context<'_>) -> Result<(), String>;

    /// Judges an answer.
    fn on_answer(
        &mut self,
        cx: &mut Context<'_>,
        answer: &Answer<Self::Asked>,
    ) -> Result<(), String>;
}

impl<A: Asker> Actor for A {
    fn act(&mut self, cx: &mut Context<'_>) -> Result<(), String> {
        self.ask(cx)
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Result<(), String> {
        while let Some(answer) = self.client_mut().answer(cx)? {
            self.on_answer(cx, &answer)?;
        }
        self.client_mut().lost(cx);
        Ok(())
    }

    fn is_quiet(&self) -> bool {
        self.client().is_quiet()
    }

    fn overdue(&self, world: &World) -> Option<String> {
        self.client().overdue(world)
    }

    fn describe(&self) -> String {
        format!("{}: {}", A::NAME, self.client().oldest())
    }
}

/// Whether a topic is not there for sure.
pub fn gone(model: &Model, topic: TopicRef) -> bool {
    model.topics[topic].life != Life::Live
}
