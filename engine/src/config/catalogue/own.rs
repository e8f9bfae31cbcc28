//! The keys that only Millrace has. A table of constants, read on any thread; it knows nothing about how a
//! key is used.

use crate::config::key::{KeySpec, keys};

/// The keys of our own, sorted by name.
pub static OWN: &[KeySpec] = keys! {
    "http.listener": String, "127.0.0.1:9644", Any, Honoured, Static;
    "Where health and metrics are served over HTTP, as host:port; empty switches it off.";
    "idle.poll.us": Int, "0", Between(0, 1000000000), Honoured, Static;
    "How long a core that has nothing to do looks for work before it sleeps, in microseconds, where work came that soon the last time and little came at once; 0: only a few turns.";
    "native.idle.poll.us": Int, "200", Between(0, 1000000000), Honoured, Static;
    "As idle.poll.us, where that is less, for a core with a native connection whose client asks for it; 0: nobody may ask.";
    "native.listener": String, "127.0.0.1:9192", Any, Honoured, Static;
    "Where the native protocol is served, as host:port; empty switches it off.";
    "native.unix.socket": String, "", Any, Honoured, Static;
    "Where the native protocol is served beside that on a Unix stream socket, as an absolute path; empty switches it off.";
    "record.validation.walk.enable": Boolean, "true", Any, Honoured, Static;
    "Whether the records inside compressed batches are checked one by one, as Kafka does; false trusts the producers.";
};
