//! The kernel's edge: one io_uring per core, its buffers, its wake-up. Everything here lives on the
//! core that made it; nothing here knows Kafka, partitions or logs.

pub mod buf;
