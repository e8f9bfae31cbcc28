//! See the subcommand; its implementation follows.

use crate::Failure;

/// The options.
#[derive(Debug, clap::Args)]
pub struct Arguments {}

/// Runs it.
///
/// # Errors
/// A sentence for the operator.
pub fn run(_: &Arguments) -> Result<(), Failure> {
    Err(Failure("not built yet".to_owned()))
}
