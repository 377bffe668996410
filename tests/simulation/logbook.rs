//! What is logged in a history: warnings and errors are kept, the rest is shown on request.

use std::{
    fmt::{self, Write as _},
    sync::{Arc, Mutex},
};

use tokio::time::Instant;
use tracing::{
    Event, Level, Subscriber,
    field::{Field, Visit},
    level_filters::LevelFilter,
    subscriber::DefaultGuard,
};
use tracing_subscriber::{
    Layer,
    layer::{Context, SubscriberExt as _},
};

/// Keeps what is logged on this thread.
#[derive(Debug, Clone, Default)]
pub(crate) struct Logbook {
    complaints: Arc<Mutex<Vec<String>>>,
}

impl Logbook {
    /// Listens until the guard is dropped.
    pub(crate) fn listen(&self) -> DefaultGuard {
        let shown = std::env::var("SIMULATION_LOG")
            .ok()
            .and_then(|level| level.parse::<LevelFilter>().ok());
        let pen = Pen {
            logbook: self.clone(),
            shown,
            started: Mutex::new(None),
        };
        let level = shown.unwrap_or(LevelFilter::WARN).max(LevelFilter::WARN);
        tracing::subscriber::set_default(
            tracing_subscriber::registry().with(pen.with_filter(level)),
        )
    }

    /// Notes a complaint of the simulation itself.
    pub(crate) fn complain(&self, complaint: String) {
        self.complaints.lock().unwrap().push(complaint);
    }

    /// Returns the complaints that contain none of the allowed texts.
    pub(crate) fn complaints(&self, allowed: &[&str]) -> Vec<String> {
        let all = self.complaints.lock().unwrap();
        all.iter()
            .filter(|one| !allowed.iter().any(|text| one.contains(text)))
            .cloned()
            .collect()
    }
}

struct Pen {
    logbook: Logbook,
    shown: Option<LevelFilter>,
    started: Mutex<Option<Instant>>,
}

impl<S: Subscriber> Layer<S> for Pen {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let metadata = event.metadata();
        if !metadata.target().starts_with("landbridge") {
            return;
        }
        let mut line = Line(format!("{} {}", metadata.level(), metadata.target()));
        event.record(&mut line);
        if self.shown.is_some_and(|level| *metadata.level() <= level) {
            let started = *self
                .started
                .lock()
                .unwrap()
                .get_or_insert_with(Instant::now);
            eprintln!("{:9.3} {}", started.elapsed().as_secs_f64(), line.0);
        }
        if *metadata.level() <= Level::WARN {
            self.logbook.complain(line.0);
        }
    }
}

struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        write!(self.0, " {}={value:?}", field.name()).unwrap();
    }
}
