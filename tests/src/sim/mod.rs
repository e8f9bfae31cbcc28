//! Whole shards of one broker against a plain model, on one thread, from a seed: random requests of every
//! kind, crashes at random moments, starts on another number of cores. Knows the rules that a client may
//! rely on; the broker's code is the one that runs in production.
//!
//! `world` is the machine around the shards, `client` a connection, `model` what must hold; the actors
//! (`producer`, `consumer`, `prober`, `admin`, `committer`) ask and judge the answers; this file decides
//! when the broker crashes, and checks everything when it does and at the end.

mod actor;
mod admin;
mod checker;
mod client;
mod commits;
mod committer;
mod consumer;
mod members;
mod model;
mod pipeline;
mod prober;
mod producer;
mod world;

use std::cell::Cell;
use std::sync::Once;

use engine::outstanding::Outstanding;
use storage::sim_disk::SimRng;

use actor::Actor;
use admin::Admin;
use checker::Checker;
use client::{Context, between, pick};
use committer::Committer;
use consumer::Consumer;
use members::Members;
use model::{Life, Model, Topic, ensure};
use pipeline::Pipeline;
use prober::Prober;
use producer::{Idempotent, Plain};
pub use world::Shape;
use world::{End, Start, World};

/// Settings of the simulated broker: small numbers, so that little time goes by between events.
const SETTINGS: &str = "\
offsets.topic.num.partitions=3
offsets.topic.replication.factor=1
group.initial.rebalance.delay.ms=3
group.min.session.timeout.ms=10
num.partitions=2
";

/// Steps in which everything under way must come to its end.
const SETTLE_STEPS_MAX: u64 = 400_000;

thread_local! {
    static SEED: Cell<Option<u64>> = const { Cell::new(None) };
}

/// Says which seed is at work when an assertion of the broker fails.
fn name_seed_in_panics() {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if let Some(seed) = SEED.get() {
                eprintln!("simulation of shards, seed {seed}:");
            }
            before(info);
        }));
    });
}

/// Runs a simulation of about `steps` steps.
///
/// # Errors
/// What went wrong, with the seed that makes it go wrong again.
///
/// # Panics
/// If an assertion of the broker fails; the seed is told before.
pub fn run(seed: u64, steps: u32, shape: Shape) -> Result<(), String> {
    run_traced(seed, steps, shape).map(|_| ())
}

/// As [`run`], with a number that two runs share only if they went the same way.
///
/// # Errors
/// As [`run`].
///
/// # Panics
/// As [`run`].
pub fn run_traced(seed: u64, steps: u32, shape: Shape) -> Result<u64, String> {
    name_seed_in_panics();
    SEED.set(Some(seed));
    let outcome = Simulation::new(seed, shape).and_then(|mut simulation| {
        let outcome = simulation.run(u64::from(steps));
        let at = simulation.world.time_us();
        let start = simulation.starts;
        outcome.map(|()| simulation.world.trace()).map_err(|why| {
            let topics = simulation.model.summary();
            let trouble = simulation.world.describe_trouble();
            format!("at {at} us, in start {start}, with {trouble}: {why}; topics: {topics}")
        })
    });
    SEED.set(None);
    outcome.map_err(|why| {
        let kind = if shape.pressed {
            "pressed shards"
        } else {
            "shards"
        };
        format!("simulation of {kind}, seed {seed}, {steps} steps: {why}")
    })
}

struct Simulation {
    rng: SimRng,
    world: World,
    model: Model,
    actors: Vec<Box<dyn Actor>>,
    starts: u32,
    /// An actor has its turn in one of so many steps.
    act_one_in: u64,
    /// At which step what is wrong with the disk ends.
    fault_ends: Option<u64>,
    /// The broker has started.
    serving: bool,
}

impl Simulation {
    fn new(seed: u64, shape: Shape) -> Result<Simulation, String> {
        let mut rng = SimRng::new(seed);
        let dirs = between(&mut rng, 1, 3) as usize;
        let world = World::new(rng.next_u64(), dirs, SETTINGS, shape)?;
        let session_version = between(&mut rng, 7, 18) as i16;
        let actors: Vec<Box<dyn Actor>> = vec![
            Box::new(Admin::new(shape.partitions_max)),
            Box::new(Plain::new(-1)),
            Box::new(Plain::new(1)),
            Box::new(Plain::new(0)),
            Box::new(Idempotent::default()),
            Box::new(Idempotent::default()),
            Box::new(Consumer::new(None)),
            Box::new(Consumer::new(Some(session_version))),
            Box::new(Prober::default()),
            Box::new(Committer::new("g0".to_owned())),
            Box::new(Committer::new("g1".to_owned())),
            Box::new(Members::new("g2".to_owned(), 3)),
            Box::new(Members::new("g3".to_owned(), 2)),
            Box::new(Pipeline::default()),
        ];
        Ok(Simulation {
            rng,
            world,
            act_one_in: if shape.pressed { 3 } else { 8 },
            model: Model::default(),
            actors,
            starts: 0,
            fault_ends: None,
            serving: false,
        })
    }

    fn run(&mut self, steps: u64) -> Result<(), String> {
        self.start(false)?;
        // A third of the runs crash often.
        let crash_one_in = if self.rng.one_in(3) { 1_500 } else { 6_000 };
        let faults = self.rng.one_in(2);
        for step in 0..steps {
            if faults {
                self.meddle(step)?;
            }
            if self.rng.one_in(self.act_one_in) {
                self.act()?;
            }
            self.world.step()?;
            self.poll()?;
            if self.rng.one_in(crash_one_in) {
                let mended = self.rng.one_in(2);
                self.crash(mended)?;
            }
        }
        if self.world.is_broken() {
            self.settle()?;
            self.crash(true)?;
        }
        self.mend();
        self.settle()?;
        self.check_whole()?;
        self.check_rest()?;
        self.stop()?;
        self.start(true)?;
        self.check_whole()
    }

    fn context<'a>(world: &'a mut World, model: &'a mut Model, rng: &'a mut SimRng) -> Context<'a> {
        Context { world, model, rng }
    }

    fn act(&mut self) -> Result<(), String> {
        let chosen = self.rng.below(self.actors.len() as u64) as usize;
        let mut cx = Self::context(&mut self.world, &mut self.model, &mut self.rng);
        self.actors[chosen].act(&mut cx)
    }

    fn poll(&mut self) -> Result<(), String> {
        let mut cx = Self::context(&mut self.world, &mut self.model, &mut self.rng);
        for actor in &mut self.actors {
            actor.poll(&mut cx)?;
        }
        let late = self
            .actors
            .iter()
            .find_map(|actor| actor.overdue(&self.world));
        match late {
            Some(late) => Err(format!(
                "there is no answer to {late}: {:?}",
                self.world.outstanding()
            )),
            None => Ok(()),
        }
    }

    /// Breaks a log directory or fills the disk, and ends that again after a while.
    fn meddle(&mut self, step: u64) -> Result<(), String> {
        if !self.world.is_troubled() {
            self.fault_ends = None;
            if !self.rng.one_in(3_000) {
                return Ok(());
            }
            self.fault_ends = Some(step + self.rng.below(2_500));
            if self.rng.one_in(2) {
                let left_bytes = self.rng.below(600 << 10);
                self.world.fill_disk(left_bytes);
            } else {
                self.note_flushed();
                let dir = self.rng.below(self.world.dir_count() as u64) as usize;
                let parts = ["", "", "t", ".millrace/journal", ".millrace/checkpoint"];
                let part = pick(&mut self.rng, &parts);
                self.world.break_dir(dir, part);
            }
        } else if self.fault_ends.is_some_and(|ends| ends <= step) {
            if self.world.is_broken() {
                // Whatever became of the directory, everybody is answered.
                if self.rng.one_in(3) {
                    self.settle()?;
                }
                // Only a start takes a directory back; one that is still broken is left out by it.
                let mended = self.rng.one_in(2);
                self.crash(mended)?;
                if !mended {
                    self.fault_ends = Some(step + self.rng.below(1_500));
                    return Ok(());
                }
            }
            self.mend();
        }
        Ok(())
    }

    fn mend(&mut self) {
        self.fault_ends = None;
        self.world.mend_disk();
    }

    /// Starts the broker, perhaps with crashes on the way. `after_stop`: nothing may be replayed.
    fn start(&mut self, after_stop: bool) -> Result<(), String> {
        let mut unclean = (!after_stop && self.starts > 0) || self.world.take_kept_old();
        loop {
            self.starts += 1;
            let cores = between(&mut self.rng, 1, 3) as u16;
            let polls = if self.rng.one_in(4) {
                self.rng.below(3_000)
            } else {
                u64::MAX
            };
            match self.world.start(cores, polls)? {
                Start::Refused(why) => {
                    ensure!(self.world.is_troubled(), "{why}");
                    // Whoever runs it sees to the disk.
                    self.end(End::Kill);
                    self.mend();
                    unclean = true;
                }
                Start::Cut => {
                    self.end(End::Power);
                    unclean = true;
                }
                Start::Serves(started) => {
                    for stray in &started.strays {
                        let known = self.model.topics.iter().any(|topic| {
                            topic.life != Life::Live && stray.contains(&format!("/{}-", topic.name))
                        });
                        ensure!(known, "{stray} was set aside, and nobody deleted it");
                    }
                    ensure!(
                        unclean || (!started.unclean && started.dirty_bytes == 0),
                        "after a clean stop {} bytes were replayed (unclean: {})",
                        started.dirty_bytes,
                        started.unclean
                    );
                    return self.settle_cuts();
                }
            }
        }
    }

    /// What lazy topics have flushed by now; a broken directory flushes no more.
    fn note_flushed(&mut self) {
        let world = &self.world;
        self.model
            .note_flushed(world.caught_up_us(), |topic, partition| {
                is_sound(world, topic, partition)
            });
    }

    /// Ends the broker without a word.
    fn end(&mut self, end: End) {
        // Nothing is flushed while nothing runs.
        if std::mem::take(&mut self.serving) {
            self.note_flushed();
        }
        if end == End::Power {
            self.model.cut_power();
        }
        self.world.crash(end);
    }

    /// After a start: asks what a power cut has left of lazy topics.
    fn settle_cuts(&mut self) -> Result<(), String> {
        let mut checker = Checker::default();
        // Those whose last change is in doubt, too: it is decided now, and they may turn out to be there.
        for topic in 0..self.model.topics.len() {
            if self.model.topics[topic].life == Life::Gone {
                continue;
            }
            for partition in 0..self.model.topics[topic].partitions.len() {
                if !self.model.topics[topic].partitions[partition].cut {
                    continue;
                }
                let mut cx = Self::context(&mut self.world, &mut self.model, &mut self.rng);
                if let Some(end) = checker.latest(&mut cx, topic, partition as i32)? {
                    self.model.settle_cut(topic, partition as i32, end)?;
                }
            }
        }
        let mut cx = Self::context(&mut self.world, &mut self.model, &mut self.rng);
        checker.end(&mut cx);
        let world = &self.world;
        self.model
            .note_start(|topic, partition| is_sound(world, topic, partition));
        self.serving = true;
        Ok(())
    }

    /// Ends the broker in one way or another, and starts it again.
    fn crash(&mut self, mended: bool) -> Result<(), String> {
        let troubled = self.world.is_troubled();
        let end = match self.rng.below(5) {
            0 => None,
            1 => Some(End::Kill),
            _ => Some(End::Power),
        };
        match end {
            Some(end) => self.end(end),
            None => self.stop()?,
        }
        self.poll()?;
        if mended {
            self.mend();
        }
        self.start(end.is_none() && !troubled)?;
        if self.rng.one_in(2) {
            self.check_whole()?;
        }
        Ok(())
    }

    /// Stops the broker; who waits for an answer gets it or loses the connection.
    fn stop(&mut self) -> Result<(), String> {
        for actor in &mut self.actors {
            actor.expect_stop(true);
        }
        self.world.begin_shutdown()?;
        let mut steps = 0;
        while !self.world.has_stopped()? {
            steps += 1;
            ensure!(
                steps < SETTLE_STEPS_MAX && self.world.step()?,
                "the broker does not stop: {:?}",
                self.world.outstanding()
            );
            self.poll()?;
        }
        self.world.end_stopped();
        self.serving = false;
        self.poll()?;
        for actor in &mut self.actors {
            actor.expect_stop(false);
        }
        Ok(())
    }

    /// Waits until every question is answered and certain.
    fn settle(&mut self) -> Result<(), String> {
        let mut steps = 0;
        let broken = self.world.is_broken();
        loop {
            let open = self
                .actors
                .iter()
                .position(|actor| !actor.is_quiet() || !(broken || actor.is_settled()));
            let Some(open) = open else {
                return Ok(());
            };
            steps += 1;
            ensure!(
                steps < SETTLE_STEPS_MAX,
                "no answer for {}: {:?}",
                self.actors[open].describe(),
                self.world.outstanding()
            );
            if !broken && !self.actors[open].is_settled() {
                let mut cx = Self::context(&mut self.world, &mut self.model, &mut self.rng);
                self.actors[open].act(&mut cx)?;
            }
            self.world.step()?;
            self.poll()?;
        }
    }

    /// Reads every partition from its start to its end.
    fn check_whole(&mut self) -> Result<(), String> {
        let mut checker = Checker::default();
        for topic in self.model.live() {
            for partition in 0..self.model.topics[topic].partitions.len() {
                let known = &self.model.topics[topic];
                if !is_sound(&self.world, known, partition as i32) {
                    continue;
                }
                let mut cx = Self::context(&mut self.world, &mut self.model, &mut self.rng);
                checker.check(&mut cx, topic, partition as i32)?;
            }
        }
        let mut cx = Self::context(&mut self.world, &mut self.model, &mut self.rng);
        checker.end(&mut cx);
        Ok(())
    }

    /// Nothing waits for anything when nobody asks.
    fn check_rest(&mut self) -> Result<(), String> {
        let mut steps = 0;
        let at_rest = |all: &[Outstanding]| all.iter().all(|one| *one == Outstanding::default());
        while !at_rest(&self.world.outstanding()) {
            steps += 1;
            ensure!(
                steps < SETTLE_STEPS_MAX / 10,
                "nobody asks, and there is left: {:?}",
                self.world.outstanding()
            );
            self.world.step()?;
            self.poll()?;
        }
        Ok(())
    }
}

/// Whether a partition surely lies in a directory that works.
fn is_sound(world: &World, topic: &Topic, partition: i32) -> bool {
    !(world.is_broken() && world.may_refuse(&topic.name, topic.id, partition))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_goes_the_same_way_again() {
        for shape in [Shape::roomy(), Shape::pressed(77)] {
            let first = run_traced(77, 1_500, shape).expect("it holds");
            assert_eq!(run_traced(77, 1_500, shape), Ok(first));
        }
    }

    #[test]
    fn seeds() {
        for seed in 100..112 {
            for shape in [Shape::roomy(), Shape::pressed(seed)] {
                if let Err(why) = run(seed, 1_500, shape) {
                    panic!("{why}");
                }
            }
        }
    }
}
