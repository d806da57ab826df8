//! Ctrl-C. Without a word here it ends the program at once. A walk that has something to show of
//! what it found until then may ask to end it itself; whatever it does, the second press ends the
//! program.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGXFSZ};
use signal_hook::{SigId, flag};

/// What is known of the presses until now.
struct Presses {
    was_pressed: Arc<AtomicBool>,
    /// Whether the next one ends the program.
    is_next_last: Arc<AtomicBool>,
}

static PRESSES: LazyLock<Presses> = LazyLock::new(|| {
    let presses = Presses {
        was_pressed: Arc::default(),
        is_next_last: Arc::default(),
    };
    presses.register(SIGINT);
    presses
});

/// The other ways in which somebody ends a program.
static TERM: LazyLock<()> = LazyLock::new(|| PRESSES.register(SIGTERM));
static HANG_UP: LazyLock<()> = LazyLock::new(|| PRESSES.register(SIGHUP));

impl Presses {
    /// In this order: the press that sets a flag is not the one that finds it set. Where handlers
    /// cannot be had, a signal ends the program as ever.
    fn register(&self, signal: i32) {
        let last = flag::register_conditional_default(signal, Arc::clone(&self.is_next_last));
        if last.is_ok() {
            for of in [&self.is_next_last, &self.was_pressed] {
                let _ = flag::register(signal, Arc::clone(of));
            }
        }
    }
}

/// As long as this is kept, the first press does not end the program. Who keeps it looks for that.
pub struct Interrupt(&'static Presses);

impl Interrupt {
    /// Asks for the first press.
    pub fn catch() -> Interrupt {
        KEPT.fetch_add(1, Ordering::Relaxed);
        let was_pressed = PRESSES.was_pressed.load(Ordering::Relaxed);
        PRESSES.is_next_last.store(was_pressed, Ordering::Relaxed);
        Interrupt(&PRESSES)
    }

    /// The same for whoever has something to take back: also where the program is asked to end, or
    /// its terminal goes.
    pub fn catch_all() -> Interrupt {
        LazyLock::force(&HANG_UP);
        Interrupt::catch_end()
    }

    /// The same for whoever goes on until the program is asked to end. Whether the terminal's going
    /// is such a word is its caller's business (nohup).
    pub fn catch_end() -> Interrupt {
        LazyLock::force(&TERM);
        Interrupt::catch()
    }

    /// Whether Ctrl-C was pressed since this run began to look for it.
    pub fn is_pressed(&self) -> bool {
        self.0.was_pressed.load(Ordering::Relaxed)
    }
}

impl Drop for Interrupt {
    /// Once nobody looks for a press any more, it ends the program.
    fn drop(&mut self) {
        if KEPT.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.0.is_next_last.store(true, Ordering::Relaxed);
        }
    }
}

/// Whether somebody has ended the program: what was begun is taken back by then, and nothing else is begun.
pub fn was_ended() -> bool {
    Interrupt::catch_all().is_pressed()
}

/// Lets a file that grows beyond the limit of its user be an error of the call that writes it, rather than the
/// end of the program: what was begun can be taken away then.
pub fn outlive_limits() {
    static ONCE: LazyLock<()> = LazyLock::new(|| {
        let _ = flag::register(SIGXFSZ, Arc::default());
    });
    LazyLock::force(&ONCE);
}

/// Whether somebody who still looks for it was told to end.
pub fn is_asked_to_end() -> bool {
    KEPT.load(Ordering::Relaxed) > 0 && PRESSES.was_pressed.load(Ordering::Relaxed)
}

/// How many ask for the first press.
static KEPT: AtomicUsize = AtomicUsize::new(0);

/// Ctrl-C, seen by who has a line on a terminal to take away before the program ends.
pub struct Watch(Arc<AtomicBool>, Option<SigId>);

impl Watch {
    pub fn start() -> Watch {
        let was_pressed = Arc::default();
        let registered = flag::register(SIGINT, Arc::clone(&was_pressed));
        Watch(was_pressed, registered.ok())
    }

    /// Whether it was pressed and nobody else heeds that.
    pub fn is_pressed(&self) -> bool {
        self.0.load(Ordering::Relaxed) && KEPT.load(Ordering::Relaxed) == 0
    }

    /// Lets the program end, where it was pressed.
    pub fn end(self) {
        if self.is_pressed() {
            // It ends here; where it cannot be ended, it goes on.
            let _ = signal_hook::low_level::emulate_default_handler(SIGINT);
        }
        if let Some(registered) = self.1 {
            signal_hook::low_level::unregister(registered);
        }
    }
}
