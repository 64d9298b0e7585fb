//! A race: several sides do the same work in turns, so that whatever else the machine does slows all of them.
//!
//! Runs in: the parent. Never: lets two sides of this process work at the same time.

use std::time::Duration;

use crate::Outcome;
use crate::measure::Figure;

/// What came out of a row.
#[derive(Debug)]
pub(crate) struct Measured {
    pub(crate) ours: Figure,
    pub(crate) peers: Vec<Peer>,
}

/// Another side that did the same, or a bound.
#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) name: &'static str,
    /// Or why there is none.
    pub(crate) figure: Result<Figure, String>,
    /// The share of the peer's figure that ours may be at the most.
    pub(crate) aim: Option<f64>,
}

impl Peer {
    pub(crate) fn new(name: &'static str, figure: Result<Figure, String>) -> Self {
        Self { name, figure, aim: None }
    }

    /// A yardstick that is not measured: what our figure may be at the most.
    pub(crate) fn bound(name: &'static str, value: f64) -> Self {
        Self { name, figure: Ok(Figure::exactly(value)), aim: Some(1.0) }
    }

    /// Our figure as a share of the peer's: below 1, we need less.
    pub(crate) fn ratio(&self, ours: &Figure) -> Option<f64> {
        Some(ours.median / self.figure.as_ref().ok()?.median)
    }

    /// Whether the aim is reached, if there is one.
    pub(crate) fn verdict(&self, ours: &Figure) -> Option<bool> {
        Some(self.ratio(ours)? <= self.aim?)
    }
}

/// Does one round, and returns its seconds (or bytes) for one unit.
type Side<'a> = Box<dyn FnMut() -> Outcome<f64> + 'a>;

struct Entrant<'a> {
    side: Option<Side<'a>>,
    rounds: Vec<f64>,
    /// Its figure is made of the rounds if there is a side.
    peer: Peer,
}

/// Our side and its peers, in the order of the table.
pub(crate) struct Race<'a> {
    rounds: u32,
    ours: Entrant<'a>,
    peers: Vec<Entrant<'a>>,
}

impl<'a> Race<'a> {
    /// A race of so many rounds, after one that is not counted.
    pub(crate) fn new(rounds: u32, ours: impl FnMut() -> Outcome<f64> + 'a) -> Self {
        Self { rounds, ours: Entrant::running("process-task", ours), peers: Vec::new() }
    }

    /// A peer that runs in turns with us.
    pub(crate) fn against(mut self, name: &'static str, side: impl FnMut() -> Outcome<f64> + 'a) -> Self {
        self.peers.push(Entrant::running(name, side));
        self
    }

    /// A peer that has run already, or a bound.
    pub(crate) fn beside(mut self, peer: Peer) -> Self {
        self.peers.push(Entrant { side: None, rounds: Vec::new(), peer });
        self
    }

    /// Sets the aim for the peer that was named last.
    pub(crate) fn aim(mut self, ratio: f64) -> Self {
        if let Some(last) = self.peers.last_mut() {
            last.peer.aim = Some(ratio);
        }
        self
    }

    pub(crate) fn run(mut self) -> Outcome<Measured> {
        for round in 0..=self.rounds {
            let entrants = std::iter::once(&mut self.ours).chain(&mut self.peers);
            entrants.into_iter().try_for_each(|entrant| entrant.round(round > 0))?;
        }
        let ours = Figure::of(&self.ours.rounds);
        Ok(Measured { ours, peers: self.peers.into_iter().map(Entrant::finish).collect() })
    }
}

impl<'a> Entrant<'a> {
    fn running(name: &'static str, side: impl FnMut() -> Outcome<f64> + 'a) -> Self {
        let peer = Peer::new(name, Err("not measured".to_owned()));
        Self { side: Some(Box::new(side)), rounds: Vec::new(), peer }
    }

    fn round(&mut self, counts: bool) -> Outcome<()> {
        let Some(side) = &mut self.side else { return Ok(()) };
        // What the side before has left to be done, such as processes that are ending, must not count here.
        std::thread::sleep(Duration::from_millis(20));
        let figure = side().map_err(|error| format!("{}: {error}", self.peer.name))?;
        if counts {
            self.rounds.push(figure);
        }
        Ok(())
    }

    fn finish(self) -> Peer {
        let figure = if self.side.is_some() { Ok(Figure::of(&self.rounds)) } else { self.peer.figure };
        Peer { figure, ..self.peer }
    }
}
