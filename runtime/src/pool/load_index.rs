//! Index of workers by load. An update or a look-up costs the same for any number of workers.
//!
//! Runs in: the parent, under the scheduler's mutex. It is told each number's load, and answers which has least and which has
//! most; it does not know what a worker is.
//!
//! Why it is sorted, and an empty slot is never listed: a call, or a change of leader, costs no more with 256 workers
//! than with two. A slot that is empty and still listed would be given calls that no worker runs.

use crate::link::window::MAX_IN_FLIGHT;

/// One more than the most calls that a worker can have.
const LEVELS: usize = MAX_IN_FLIGHT as usize + 1;

/// Not in any list.
const NOWHERE: usize = usize::MAX;

/// Where a number stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Load {
    /// How many calls the worker has.
    pub(super) load: usize,
    /// Whether it may be given more.
    pub(super) open: bool,
}

/// The numbers of all workers that have been made ready, by load; and of those that have something to answer.
#[derive(Debug, Default)]
pub(super) struct LoadIndex {
    /// For each load those that may get more, the one used last on top, and those that may not.
    by_load: [[Vec<usize>; 2]; LEVELS],
    ranks: Vec<Option<Load>>,
    /// Where in its list a number stands.
    slots: Vec<usize>,
    watched: Vec<usize>,
    watched_slots: Vec<usize>,
    /// How many calls stand behind another one.
    behind: usize,
}

impl LoadIndex {
    /// Makes room for numbers below `count`.
    pub(super) fn grow(&mut self, count: usize) {
        if count > self.ranks.len() {
            self.ranks.resize(count, None);
            self.slots.resize(count, NOWHERE);
            self.watched_slots.resize(count, NOWHERE);
        }
    }

    /// Puts a number where it belongs: into no list, or into that of its rank.
    pub(super) fn put(&mut self, number: usize, rank: Option<Load>) {
        let before = self.ranks[number];
        if before == rank {
            return;
        }
        if let Some(before) = before {
            self.behind -= before.load.saturating_sub(1);
            let list = &mut self.by_load[before.load][usize::from(before.open)];
            let slot = self.slots[number];
            list.swap_remove(slot);
            if let Some(moved) = list.get(slot) {
                self.slots[*moved] = slot;
            }
        }
        self.ranks[number] = rank;
        if let Some(rank) = rank {
            self.behind += rank.load.saturating_sub(1);
            let list = &mut self.by_load[rank.load][usize::from(rank.open)];
            self.slots[number] = list.len();
            list.push(number);
        }
    }

    /// Says whether a worker has something to answer.
    pub(super) fn watch(&mut self, number: usize, watched: bool) {
        let slot = self.watched_slots[number];
        if watched == (slot != NOWHERE) {
            return;
        }
        if watched {
            self.watched_slots[number] = self.watched.len();
            self.watched.push(number);
        } else {
            self.watched_slots[number] = NOWHERE;
            self.watched.swap_remove(slot);
            if let Some(moved) = self.watched.get(slot) {
                self.watched_slots[*moved] = slot;
            }
        }
    }

    /// Those that have something to answer.
    pub(super) fn watched(&self) -> &[usize] {
        &self.watched
    }

    /// One that has nothing to do and may get something, the one used last first.
    pub(super) fn idle(&self) -> Option<usize> {
        self.by_load[0][1].last().copied()
    }

    /// All that have nothing to do and may get something.
    pub(super) fn all_idle(&self) -> &[usize] {
        &self.by_load[0][1]
    }

    /// One of those with the fewest calls that has room for more.
    pub(super) fn least(&self) -> Option<usize> {
        self.by_load[..LEVELS - 1].iter().find_map(|[_, open]| open.last().copied())
    }

    /// One of those with the most calls, and how many stand behind the one that it is running.
    pub(super) fn fullest(&self) -> Option<(usize, usize)> {
        let levels = self.by_load.iter().enumerate().skip(2).rev();
        let mut full = levels.filter_map(|(load, [shut, open])| Some((*shut.last().or(open.last())?, load - 1)));
        full.next()
    }

    /// How many calls stand behind another one.
    pub(super) fn behind(&self) -> usize {
        self.behind
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the lists should say, found by looking at every number.
    fn agree(levels: &LoadIndex, ranks: &[Option<Load>], watched: &[bool]) {
        let loads = |open: Option<bool>| {
            let those = ranks.iter().flatten().filter(move |rank| open.is_none_or(|open| rank.open == open));
            those.map(|rank| rank.load)
        };
        let room = |rank: &Load| rank.load < LEVELS - 1 && rank.open;
        let least = ranks.iter().flatten().filter(|rank| room(rank)).map(|rank| rank.load).min();
        assert_eq!(levels.least().map(|number| ranks[number].unwrap().load), least);
        assert!(levels.least().is_none_or(|number| ranks[number].unwrap().open));
        assert_eq!(levels.idle().is_some(), loads(Some(true)).any(|load| load == 0));
        let most = loads(None).max().filter(|most| *most > 1);
        assert_eq!(levels.fullest().map(|(_, behind)| behind + 1), most);
        assert!(levels.fullest().is_none_or(|(number, behind)| ranks[number].unwrap().load == behind + 1));
        assert_eq!(levels.behind(), loads(None).map(|load| load.saturating_sub(1)).sum::<usize>());
        let mut seen = levels.watched().to_vec();
        seen.sort_unstable();
        let expected: Vec<usize> = (0..watched.len()).filter(|number| watched[*number]).collect();
        assert_eq!(seen, expected);
    }

    #[test]
    fn after_any_changes_the_lists_agree_with_every_number() {
        const COUNT: usize = 7;
        let mut levels = LoadIndex::default();
        levels.grow(COUNT);
        let (mut ranks, mut watched) = ([None; COUNT], [false; COUNT]);
        let mut random = 1u64;
        let mut below = |limit: usize| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            usize::try_from(random >> 33).unwrap() % limit
        };
        for _ in 0..20_000 {
            let number = below(COUNT);
            if below(3) == 0 {
                watched[number] = below(2) == 0;
                levels.watch(number, watched[number]);
            } else {
                let rank = Load { load: below(LEVELS), open: below(2) == 0 };
                ranks[number] = (below(5) > 0).then_some(rank);
                levels.put(number, ranks[number]);
            }
            agree(&levels, &ranks, &watched);
        }
    }

    #[test]
    fn the_idle_worker_that_was_used_last_comes_first() {
        let mut levels = LoadIndex::default();
        levels.grow(3);
        let idle = Some(Load { load: 0, open: true });
        (0..3).for_each(|number| levels.put(number, idle));
        assert_eq!(levels.idle(), Some(2));
        levels.put(2, Some(Load { load: 1, open: true }));
        assert_eq!(levels.idle(), Some(1));
        levels.put(2, idle);
        assert_eq!(levels.idle(), Some(2));
    }
}
