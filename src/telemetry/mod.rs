//! Where figures, log lines and pages leave the process. A sink: it knows words (labels, names,
//! rows), never what they mean to routing, cache or pool.

pub mod figures;
pub mod http;
pub mod logging;
pub mod metrics;
pub mod timestamp;
