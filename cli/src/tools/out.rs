//! Standard output of the tools. Any thread; it swallows a closed pipe, as Java's print stream does, and remembers it.

use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};

static BROKEN: AtomicBool = AtomicBool::new(false);

/// Writes bytes as they are.
pub fn bytes(bytes: &[u8]) {
    if std::io::stdout().lock().write_all(bytes).is_err() {
        BROKEN.store(true, Ordering::Relaxed);
    }
}

/// Writes text without a line end.
pub fn text(text: &str) {
    bytes(text.as_bytes());
}

/// Writes a line.
pub fn line(text: &str) {
    let mut whole = String::with_capacity(text.len() + 1);
    whole.push_str(text);
    whole.push('\n');
    bytes(whole.as_bytes());
}

/// Hands everything written so far to the system.
pub fn flush() {
    if std::io::stdout().lock().flush().is_err() {
        BROKEN.store(true, Ordering::Relaxed);
    }
}

/// Whether a write failed: nobody reads any more.
pub fn is_broken() -> bool {
    BROKEN.load(Ordering::Relaxed)
}
