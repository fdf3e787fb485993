//! The course of a simulated step that lets others in between its layers.

use node::asides::Asides;
use node::clock::{Clock, Instant};

/// A step on its way: its time is spread evenly over its layers.
#[derive(Debug)]
pub(crate) struct Course {
    total_ns: u64,
    layers: u64,
    done: u64,
}

/// Layers that ran one after the other.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Piece {
    /// When the first of them began.
    pub(crate) began: Instant,
    /// The share of the whole step that they are.
    pub(crate) share: f64,
    /// How long somebody has waited for the end of the last layer, nanoseconds.
    pub(crate) waited_ns: u64,
}

impl Course {
    pub(crate) fn new(total_ns: u64, layers: u32) -> Self {
        Self { total_ns, layers: u64::from(layers.max(1)), done: 0 }
    }

    pub(crate) fn is_over(&self) -> bool {
        self.done == self.layers
    }

    /// The time of the first `layers` of them.
    fn ns(&self, layers: u64) -> u64 {
        (u128::from(self.total_ns) * u128::from(layers) / u128::from(self.layers)) as u64
    }

    /// Runs to the end, or to the end of the layer in which somebody asks for another step.
    pub(crate) async fn run<C: Clock>(&mut self, clock: &C, asides: &Asides) -> Piece {
        let (began, before) = (clock.now(), self.done);
        let after = |ns: u64| Instant(began.0 + ns);
        let left_ns = self.total_ns - self.ns(before);
        let asked = tokio::select! {
            biased;
            () = clock.sleep_until(after(left_ns)) => false,
            () = asides.asked() => true,
        };
        let mut waited_ns = 0;
        self.done = self.layers;
        if asked {
            let passed_ns = clock.now().0 - began.0;
            let reached =
                (before..self.layers).find(|layers| self.ns(*layers) - self.ns(before) >= passed_ns);
            self.done = reached.unwrap_or(self.layers);
            let end_ns = self.ns(self.done) - self.ns(before);
            waited_ns = end_ns.saturating_sub(passed_ns);
            clock.sleep_until(after(end_ns)).await;
        }
        Piece { began, share: (self.done - before) as f64 / self.layers as f64, waited_ns }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use node::asides::{Aside, asides};
    use node::clock::TokioClock;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_step_is_left_at_the_end_of_a_layer_and_takes_its_time_all_the_same() {
        #[expect(clippy::disallowed_methods, reason = "time stands still here but for its clock")]
        let clock = TokioClock::new(tokio::time::Instant::now(), 1);
        let (asker, asked) = asides();
        let mut course = Course::new(40_000_000, 4);
        let (piece, ()) = tokio::join!(course.run(&clock, &asked), async {
            clock.sleep(Duration::from_millis(12)).await;
            asker.ask(Aside::default());
        });
        assert_eq!((piece.share, piece.waited_ns, clock.now().0), (0.5, 8_000_000, 20_000_000));
        assert!(asked.next().is_some());
        assert_eq!(course.run(&clock, &asked).await.share, 0.5);
        assert!(course.is_over());
        assert_eq!(clock.now().0, 40_000_000);
    }
}
