//! What the code under test logs, as lines of the trace.

use std::cell::Cell;
use std::fmt::{self, Write as _};

use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

use super::{Detail, Mark, write_line};

/// Targets whose events belong to the domain.
const OURS: [&str; 2] = ["marchland", "frontier"];

/// Writes events, and at [`Detail::Everything`] spans, to the thread's trace.
#[derive(Debug)]
pub struct TraceSubscriber {
    detail: Detail,
}

thread_local! {
    static NEXT_SPAN: Cell<u64> = const { Cell::new(1) };
}

impl TraceSubscriber {
    /// A subscriber that records this much.
    #[must_use]
    pub fn new(detail: Detail) -> Self {
        Self { detail }
    }

    fn is_domain(metadata: &Metadata<'_>) -> bool {
        metadata.is_event() && *metadata.level() <= Level::INFO && OURS.iter().any(|prefix| metadata.target().starts_with(prefix))
    }

    fn wants(&self, metadata: &Metadata<'_>) -> bool {
        match self.detail {
            Detail::Everything => true,
            Detail::Domain => Self::is_domain(metadata),
        }
    }

    fn moved(&self, direction: &str, span: &Id) {
        write_line(
            || Mark::Library,
            |line| {
                let _ = write!(line, "{direction} {}", span.into_u64());
            },
        );
    }
}

struct Fields<'a>(&'a mut String);

impl Visit for Fields<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let _ =
            if field.name() == "message" { write!(self.0, " {value:?}") } else { write!(self.0, " {}={value:?}", field.name()) };
    }
}

impl Subscriber for TraceSubscriber {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        self.wants(metadata)
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(match self.detail {
            Detail::Domain => LevelFilter::INFO,
            Detail::Everything => LevelFilter::TRACE,
        })
    }

    fn new_span(&self, attributes: &Attributes<'_>) -> Id {
        let number = NEXT_SPAN.replace(NEXT_SPAN.get() + 1);
        write_line(
            || Mark::Library,
            |line| {
                let _ = write!(line, "span {number} {}", attributes.metadata().name());
                attributes.record(&mut Fields(line));
            },
        );
        Id::from_u64(number)
    }

    fn record(&self, _span: &Id, _values: &Record<'_>) {}

    fn record_follows_from(&self, _span: &Id, _follows: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let metadata = event.metadata();
        let mark = || if Self::is_domain(metadata) { Mark::Log(*metadata.level()) } else { Mark::Library };
        write_line(mark, |line| {
            let _ = write!(line, "{} {}", event.metadata().level(), event.metadata().target());
            event.record(&mut Fields(line));
        });
    }

    fn enter(&self, span: &Id) {
        self.moved("->", span);
    }

    fn exit(&self, span: &Id) {
        self.moved("<-", span);
    }
}
