//! Metrics: families declared in one place, handles registered once and kept in structs, one text
//! at scrape time. There is no global recorder: `Metrics` is built at start and passed down.

mod database;
mod exposition;
pub mod families;
mod handle;
mod histogram;
mod label_counters;
mod pgbouncer;
mod sample;

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use metrics::{Key, Label, Level, Metadata, Recorder};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle, PrometheusRecorder};

pub use self::{
    database::{Absence, CacheOutcome, DatabaseMetrics, Observation, Route},
    handle::Counter,
    histogram::{BUCKET_BOUNDS, Histogram},
    label_counters::LabelCounters,
    sample::Sample,
};
use self::{exposition::Exposition, families::Family};
use super::figures::PgbouncerView;

/// A gauge registered with the recorder.
pub type Gauge = metrics::Gauge;

/// Series beyond this are counted by nobody but `pgweir_metrics_series_refused_total`: a database
/// name can come from a client where a `*` database exists.
const SERIES_LIMIT: usize = 20_000;

const METADATA: Metadata<'static> = Metadata::new("pgweir", Level::INFO, None);

/// All series of the process.
pub struct Metrics {
    recorder: PrometheusRecorder,
    handle: PrometheusHandle,
    series: Mutex<Series>,
    refused: Counter,
}

#[derive(Default)]
struct Series {
    counters: HashMap<Key, (Counter, metrics::Counter)>,
    gauges: HashMap<Key, Gauge>,
    histograms: BTreeMap<Key, Histogram>,
    count: usize,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// Describes every family; no series exists yet.
    pub fn new() -> Self {
        let recorder = PrometheusBuilder::new().build_recorder();
        for family in families::ALL {
            family.describe(&recorder);
        }
        let handle = recorder.handle();
        let metrics = Self { recorder, handle, series: Mutex::default(), refused: Counter::default() };
        let published = metrics.recorder.register_counter(&Key::from_name(families::SERIES_REFUSED.name), &METADATA);
        metrics
            .series()
            .counters
            .insert(Key::from_name(families::SERIES_REFUSED.name), (metrics.refused.clone(), published));
        metrics
    }

    /// The counter of these labels; asking twice gives the same one.
    pub fn counter(&self, family: &Family, labels: &[(&'static str, &str)]) -> Counter {
        let key = key(family, labels);
        let mut series = self.series();
        if let Some((counter, _)) = series.counters.get(&key) {
            return counter.clone();
        }
        let counter = Counter::default();
        if self.admit(&mut series) {
            let published = self.recorder.register_counter(&key, &METADATA);
            series.counters.insert(key, (counter.clone(), published));
        }
        counter
    }

    /// The gauge of these labels.
    pub fn gauge(&self, family: &Family, labels: &[(&'static str, &str)]) -> Gauge {
        let key = key(family, labels);
        let mut series = self.series();
        if let Some(gauge) = series.gauges.get(&key) {
            return gauge.clone();
        }
        if !self.admit(&mut series) {
            return Gauge::noop();
        }
        let gauge = self.recorder.register_gauge(&key, &METADATA);
        series.gauges.insert(key, gauge.clone());
        gauge
    }

    /// The histogram of these labels; one that nothing was recorded into is not rendered.
    pub fn histogram(&self, family: &Family, labels: &[(&'static str, &str)]) -> Histogram {
        let key = key(family, labels);
        let mut series = self.series();
        if let Some(histogram) = series.histograms.get(&key) {
            return histogram.clone();
        }
        let histogram = Histogram::default();
        if self.admit(&mut series) {
            series.histograms.insert(key, histogram.clone());
        }
        histogram
    }

    /// Everything in Prometheus' text format, with `samples` of figures that are counted elsewhere; with a view also
    /// the families of pgbouncer_exporter.
    pub fn render(&self, samples: &[Sample], view: Option<&dyn PgbouncerView>) -> String {
        let histograms = self.publish();
        let mut text = Exposition::new(self.handle.render());
        for family in families::ALL {
            histogram::render(&mut text, family, &histograms);
        }
        sample::render(&mut text, samples);
        if let Some(view) = view {
            pgbouncer::render(&mut text, view);
        }
        text.finish()
    }

    /// Tells the recorder the counters' values. What takes long happens after this, without the
    /// lock that a worker may need to register a series.
    fn publish(&self) -> Vec<(Key, Histogram)> {
        let series = self.series();
        for (counter, published) in series.counters.values() {
            published.absolute(counter.get());
        }
        series.histograms.iter().map(|(key, histogram)| (key.clone(), histogram.clone())).collect()
    }

    fn admit(&self, series: &mut Series) -> bool {
        if series.count >= SERIES_LIMIT {
            self.refused.increment();
            return false;
        }
        series.count += 1;
        true
    }

    fn series(&self) -> MutexGuard<'_, Series> {
        self.series.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn key(family: &Family, labels: &[(&'static str, &str)]) -> Key {
    let labels: Vec<Label> = labels.iter().map(|(name, value)| Label::new(*name, (*value).to_owned())).collect();
    Key::from_parts(family.name, labels)
}

/// Shared by everything that registers lazily.
pub type SharedMetrics = Arc<Metrics>;

#[cfg(test)]
mod tests;
