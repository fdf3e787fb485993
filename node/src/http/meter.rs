//! What the API counts, in Prometheus' form.

use std::sync::Arc;
use std::time::Duration;

use metrics::{Counter, Gauge, Histogram, Key, KeyName, Label, Level, Metadata, Recorder as _, Unit};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder};

use crate::clock::{Clock as _, Instant, TokioClock};

const METADATA: Metadata<'static> = Metadata::new(module_path!(), Level::INFO, Some(module_path!()));

const REQUESTS: &str = "meshwright_http_requests_total";
const RECEIVED: &str = "meshwright_received_bytes_total";
const TTFT: &str = "meshwright_time_to_first_token_seconds";
const TPOT: &str = "meshwright_time_per_output_token_seconds";

/// Bounds of the first token's times, seconds.
const TTFT_BUCKETS: [f64; 14] =
    [0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0];

/// Bounds of a token's times, seconds.
const TPOT_BUCKETS: [f64; 12] = [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0];

/// Counts requests, tokens and times.
pub struct Meter {
    recorder: Arc<PrometheusRecorder>,
    page: PrometheusHandle,
    prompt_tokens: Counter,
    tokens: Counter,
    ttft: Histogram,
    tpot: Histogram,
    waiting: Gauge,
    running: Gauge,
    queued: Gauge,
    sessions: Gauge,
    epoch: Gauge,
    serving: Gauge,
}

impl std::fmt::Debug for Meter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Meter").finish_non_exhaustive()
    }
}

impl Default for Meter {
    fn default() -> Self {
        Self::new()
    }
}

impl Meter {
    /// One that has counted nothing.
    pub fn new() -> Self {
        let builder = PrometheusBuilder::new();
        let builder = builder.set_buckets_for_metric(Matcher::Full(TTFT.into()), &TTFT_BUCKETS);
        let builder =
            builder.and_then(|b| b.set_buckets_for_metric(Matcher::Full(TPOT.into()), &TPOT_BUCKETS));
        let recorder = Arc::new(builder.expect("there are buckets").build_recorder());
        let counter = |name: &'static str, words: &'static str| {
            recorder.describe_counter(KeyName::from_const_str(name), None, words.into());
            recorder.register_counter(&Key::from_static_name(name), &METADATA)
        };
        let histogram = |name: &'static str, words: &'static str| {
            recorder.describe_histogram(KeyName::from_const_str(name), Some(Unit::Seconds), words.into());
            recorder.register_histogram(&Key::from_static_name(name), &METADATA)
        };
        let gauge = |name: &'static str, words: &'static str| {
            recorder.describe_gauge(KeyName::from_const_str(name), None, words.into());
            recorder.register_gauge(&Key::from_static_name(name), &METADATA)
        };
        recorder.describe_counter(
            KeyName::from_const_str(REQUESTS),
            None,
            "Requests answered, by address and status.".into(),
        );
        recorder.describe_counter(
            KeyName::from_const_str(RECEIVED),
            None,
            "Bytes that came from other nodes, by what it was.".into(),
        );
        Self {
            page: recorder.handle(),
            prompt_tokens: counter("meshwright_prompt_tokens_total", "Tokens of prompts taken on."),
            tokens: counter("meshwright_generated_tokens_total", "Tokens of answers."),
            ttft: histogram(TTFT, "From a request's arrival to the first token of each of its answers."),
            tpot: histogram(TPOT, "Mean time between tokens of an answer after its first."),
            waiting: gauge("meshwright_answers_waiting", "Answers without a token yet."),
            running: gauge("meshwright_answers_running", "Answers that are being given."),
            queued: gauge("meshwright_requests_queued", "Requests that wait for others to end."),
            sessions: gauge("meshwright_sessions", "Sessions whose head runs on this node."),
            epoch: gauge(
                "meshwright_plan_epoch",
                "Number of the latest plan that is followed, of any model.",
            ),
            serving: gauge("meshwright_serving", "1 while requests are answered."),
            recorder,
        }
    }

    /// Lets the macros of the crate `metrics`, used anywhere in this process, count here too. False where another
    /// recorder was there first.
    pub fn install(&self) -> bool {
        metrics::set_global_recorder(Arc::clone(&self.recorder)).is_ok()
    }

    /// The page that Prometheus reads.
    pub(super) fn page(&self, health: &super::Health, queued: usize) -> String {
        self.queued.set(queued as f64);
        self.sessions.set(health.sessions as f64);
        self.epoch.set(health.models.iter().map(|model| model.epoch).max().unwrap_or_default() as f64);
        self.serving.set(if health.serving { 1.0 } else { 0.0 });
        for (kind, bytes) in &health.received {
            let key = Key::from_parts(RECEIVED, vec![Label::new("kind", kind.clone())]);
            self.recorder.register_counter(&key, &METADATA).absolute(*bytes);
        }
        self.page.render()
    }

    /// A request was answered.
    pub(super) fn answered(&self, path: &'static str, status: u16) {
        let labels = vec![Label::new("path", path), Label::new("status", status.to_string())];
        self.recorder.register_counter(&Key::from_parts(REQUESTS, labels), &METADATA).increment(1);
    }

    /// Prompts were taken on.
    pub(super) fn asked(&self, prompt_tokens: usize) {
        self.prompt_tokens.increment(prompt_tokens as u64);
    }
}

/// Times one answer; counts it as waiting, then as running, until it is dropped.
#[derive(Debug)]
pub(super) struct Timing {
    meter: Arc<Meter>,
    clock: TokioClock,
    asked: Instant,
    /// When the first and the latest token came.
    tokens: Option<(Instant, Instant)>,
    count: u32,
}

impl Timing {
    /// Of an answer to a request that arrived at `asked`.
    pub(super) fn new(meter: Arc<Meter>, clock: TokioClock, asked: Instant) -> Self {
        meter.waiting.increment(1.0);
        Self { meter, clock, asked, tokens: None, count: 0 }
    }

    /// A token came.
    pub(super) fn token(&mut self) {
        let now = self.clock.now();
        self.count += 1;
        self.meter.tokens.increment(1);
        if self.tokens.is_none() {
            self.meter.waiting.decrement(1.0);
            self.meter.running.increment(1.0);
            self.meter.ttft.record(now.since(self.asked).as_secs_f64());
        }
        self.tokens = Some((self.tokens.map_or(now, |(first, _)| first), now));
    }

    fn tpot(&self) -> Option<Duration> {
        let (first, last) = self.tokens?;
        (self.count > 1).then(|| last.since(first) / (self.count - 1))
    }
}

impl Drop for Timing {
    fn drop(&mut self) {
        if self.tokens.is_some() {
            self.meter.running.decrement(1.0);
        } else {
            self.meter.waiting.decrement(1.0);
        }
        if let Some(tpot) = self.tpot() {
            self.meter.tpot.record(tpot.as_secs_f64());
        }
        // What was recorded is summed up now, so that it takes no memory when nobody reads the page.
        self.meter.page.run_upkeep();
    }
}
