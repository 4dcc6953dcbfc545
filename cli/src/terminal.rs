//! What may be done with the terminal: its width, colour if it is wanted, and a live line of progress. Everything plain
//! goes to whatever is no terminal.

use std::env;
use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

use crate::words::{counted, number};

/// As wide as a screen is taken to be that says nothing of itself.
const DEFAULT_WIDTH: usize = 100;
const BAR: usize = 24;
/// A live line that changes faster cannot be read.
const REDRAW: Duration = Duration::from_millis(50);

/// Colour, or the text as it is.
#[derive(Clone, Copy)]
pub struct Paint {
    coloured: bool,
}

impl Paint {
    /// For stdout: colour on a terminal, unless `NO_COLOR` is set.
    pub fn stdout() -> Self {
        Self::on(&io::stdout())
    }

    fn on(stream: &impl IsTerminal) -> Self {
        let unwanted = |name| env::var_os(name).is_some_and(|value| !value.is_empty());
        let dumb = env::var_os("TERM").is_some_and(|term| term == "dumb");
        Self { coloured: stream.is_terminal() && !unwanted("NO_COLOR") && !dumb }
    }

    pub fn bold(self, text: &str) -> String {
        self.paint("1", text)
    }

    pub fn dim(self, text: &str) -> String {
        self.paint("2", text)
    }

    pub fn green(self, text: &str) -> String {
        self.paint("32", text)
    }

    pub fn red(self, text: &str) -> String {
        self.paint("31", text)
    }

    pub fn yellow(self, text: &str) -> String {
        self.paint("33", text)
    }

    pub fn cyan(self, text: &str) -> String {
        self.paint("36", text)
    }

    fn paint(self, code: &str, text: &str) -> String {
        if self.coloured { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

/// The columns of stdout's terminal.
pub fn width() -> usize {
    let size = rustix::termios::tcgetwinsize(io::stdout());
    size.ok().map(|size| usize::from(size.ws_col)).filter(|columns| *columns > 0).unwrap_or(DEFAULT_WIDTH)
}

/// Writes to stdout. A reader that has had enough (`| head`) is no failure.
pub fn print(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result,
    }
}

/// Says on stderr how far we are: one line that changes on a terminal, a few lines anywhere else.
pub struct Progress {
    paint: Paint,
    live: bool,
    drawn: Option<Instant>,
    quarters: usize,
}

impl Progress {
    pub fn new() -> Self {
        let stderr = io::stderr();
        Self { paint: Paint::on(&stderr), live: stderr.is_terminal(), drawn: None, quarters: 0 }
    }

    /// One step that is done.
    pub fn step(&mut self, what: &str, how: &str) {
        self.clear();
        self.write(&format!("{}  {how}\n", self.paint.bold(&format!("{what:>10}"))));
    }

    /// A step that takes its time: gone from a terminal as soon as the next thing is said, not said anywhere else.
    pub fn waiting(&mut self, what: &str, how: &str) {
        if self.live {
            self.draw(&format!("{}  {how}", self.paint.bold(&format!("{what:>10}"))));
        }
    }

    /// Something that goes on and on: said on a terminal only.
    pub fn counting(&mut self, what: &str, how: &str) {
        if self.live && self.drawn.is_none_or(|drawn| drawn.elapsed() > REDRAW) {
            self.draw(&format!("{}  {how}", self.paint.bold(&format!("{what:>10}"))));
        }
    }

    /// So many of so many messages are done with.
    pub fn delivering(&mut self, done: usize, all: usize, handed_back: usize) {
        let counts = format!("{} of {}, {} handed back", number(done), counted(all, "message"), number(handed_back));
        self.advancing("deliver", done, all, &counts);
    }

    /// How far a step is that takes its time: a bar on a terminal, a line at each quarter anywhere else.
    pub fn advancing(&mut self, what: &str, done: usize, all: usize, counts: &str) {
        let quarters = if done == 0 { 0 } else { done * 4 / all };
        if !self.live {
            if quarters > self.quarters {
                self.step(what, counts);
            }
        } else if done == all || self.drawn.is_none_or(|drawn| drawn.elapsed() > REDRAW) {
            let full = BAR * done / all.max(1);
            let bar = format!("{}{}", "━".repeat(full), self.paint.dim(&"─".repeat(BAR - full)));
            self.draw(&format!("{}  {bar} {counts}", self.paint.bold(&format!("{what:>10}"))));
        }
        self.quarters = quarters;
    }

    fn draw(&mut self, line: &str) {
        self.write(&format!("\r\x1b[K{line}"));
        self.drawn = Some(Instant::now());
    }

    /// Takes the live line away.
    pub fn clear(&mut self) {
        if self.live && self.drawn.take().is_some() {
            self.write("\r\x1b[K");
        }
    }

    fn write(&self, text: &str) {
        // Nobody misses the progress who closed stderr.
        let _ = io::stderr().write_all(text.as_bytes());
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.clear();
    }
}
