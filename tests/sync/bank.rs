//! A bank whose total never changes, while those that move its money, and those that wait for some, are killed with kill -9.
//!
//! As long as [`seconds`] says, half of that under each start method. Runs in: the test process, which kills;
//! the tasks in children. Never: relies on which is killed when; but goes on until one was killed in the middle of a transfer.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed, Ordering::SeqCst, fence};
use std::time::{Duration, Instant};

use crate::support::PATIENCE;
use crate::support::chaos::seconds;
use crate::support::process_builder;
use process_task::sync::{Condvar, LockResult, Mutex, MutexGuard};
use process_task::{ErrorKind, Process, Shareable, Shared, StartMethod, process_task};

under_every_start_method! {
    within 600 seconds;
    kills_never_change_the_banks_total
}

const ACCOUNTS: usize = 8;
/// What each account has at first.
const EACH: i64 = 1000;
const TOTAL: i64 = 8 * EACH;

/// The accounts, and what they were before the transfer that is under way, if one is.
#[derive(Shareable)]
struct Accounts {
    balances: [i64; ACCOUNTS],
    before: [i64; ACCOUNTS],
    under_way: bool,
}

#[derive(Shareable)]
struct Bank {
    accounts: Mutex<Accounts>,
    changed: Condvar,
    /// Transfers that were begun by a process that died before their end.
    undone: AtomicU64,
    done: AtomicU64,
    waited: AtomicU64,
    closing: AtomicBool,
}

impl Bank {
    fn new() -> Self {
        let balances = [EACH; ACCOUNTS];
        Self {
            accounts: Mutex::new(Accounts { balances, before: balances, under_way: false }),
            changed: Condvar::new(),
            undone: AtomicU64::new(0),
            done: AtomicU64::new(0),
            waited: AtomicU64::new(0),
            closing: AtomicBool::new(false),
        }
    }

    /// The accounts as they should be: what a dead holder left half done is undone.
    fn checked<'a>(&self, accounts: LockResult<MutexGuard<'a, Accounts>>) -> MutexGuard<'a, Accounts> {
        let mut accounts = accounts.unwrap_or_else(|poisoned| {
            let mut accounts = poisoned.into_inner();
            if accounts.under_way {
                accounts.balances = accounts.before;
                fence(SeqCst);
                accounts.under_way = false;
                self.undone.fetch_add(1, Relaxed);
            }
            self.accounts.clear_poison();
            accounts
        });
        assert_eq!(accounts.balances.iter().sum::<i64>(), TOTAL, "the bank's total has changed");
        assert!(!accounts.under_way, "two are inside");
        // No other process is to see this.
        accounts.before = [0; ACCOUNTS];
        accounts
    }

    fn transfer(&self, from: usize, to: usize, amount: i64) {
        let mut accounts = self.checked(self.accounts.lock());
        accounts.before = accounts.balances;
        fence(SeqCst);
        accounts.under_way = true;
        fence(SeqCst);
        accounts.balances[from] -= amount;
        linger(20);
        accounts.balances[to] += amount;
        fence(SeqCst);
        accounts.under_way = false;
        drop(accounts);
        self.done.fetch_add(1, Relaxed);
        self.changed.notify_one();
    }
}

/// Does nothing for so many microseconds.
fn linger(micros: u64) {
    let start = Instant::now();
    while start.elapsed() < Duration::from_micros(micros) {
        std::hint::spin_loop();
    }
}

/// Moves money around.
#[process_task]
fn move_money(bank: &Shared<Bank>, seed: u64) {
    let mut seed = seed;
    while !bank.closing.load(Relaxed) {
        let (from, to) = (random(&mut seed) % ACCOUNTS, random(&mut seed) % ACCOUNTS);
        bank.transfer(from, to, i64::try_from(random(&mut seed) % 100).unwrap());
    }
}

/// Waits until money has been moved, again and again.
#[process_task]
fn watch_money(bank: &Shared<Bank>) {
    while !bank.closing.load(Relaxed) {
        let accounts = bank.checked(bank.accounts.lock());
        let balances = accounts.balances;
        let waited =
            bank.changed.wait_timeout_while(accounts, Duration::from_millis(200), |now| now.balances == balances);
        match waited {
            Ok((accounts, _)) => drop(bank.checked(Ok(accounts))),
            Err(poisoned) => drop(bank.checked(Err(process_task::sync::PoisonError::new(poisoned.into_inner().0)))),
        }
        bank.waited.fetch_add(1, Relaxed);
    }
}

/// xorshift64.
fn random(seed: &mut u64) -> usize {
    *seed ^= *seed << 13;
    *seed ^= *seed >> 7;
    *seed ^= *seed << 17;
    usize::try_from(*seed >> 33).unwrap()
}

fn employ(method: StartMethod, bank: &Shared<Bank>, number: usize, seed: u64) -> Process<()> {
    let builder = process_builder(method);
    match number % 2 {
        0 => builder.spawn(move_money, (bank, seed | 1)),
        _ => builder.spawn(watch_money, bank),
    }
    .unwrap()
}

fn kills_never_change_the_banks_total(method: StartMethod) {
    let duration = seconds() / 2;
    let bank = Shared::new(Bank::new()).unwrap();
    let mut seed = 0x9E37_79B9_7F4A_7C15 ^ u64::from(std::process::id());
    println!("seed {seed}");
    let mut staff: Vec<_> = (0..4).map(|number| employ(method, &bank, number, seed + number as u64)).collect();
    let (start, mut killed) = (Instant::now(), 0_u64);
    while start.elapsed() < duration || bank.undone.load(Relaxed) == 0 || bank.waited.load(Relaxed) == 0 {
        assert!(start.elapsed() < duration + PATIENCE, "no process was ever killed in the middle of a transfer");
        linger(100 * (random(&mut seed) % 30) as u64);
        let number = random(&mut seed) % staff.len();
        let next = employ(method, &bank, number, seed);
        let victim = std::mem::replace(&mut staff[number], next);
        victim.kill().unwrap();
        killed += 1;
        let error = victim.join().expect_err("no clerk goes home before the bank closes");
        assert!(matches!(error.kind(), ErrorKind::Killed { .. }), "it found something wrong: {error}");
        if killed.is_multiple_of(16) {
            // Whatever became of them, the bank is open.
            let accounts = bank.accounts.lock_timeout(PATIENCE);
            drop(bank.checked(accounts.map_err(|error| match error {
                process_task::sync::TryLockError::Poisoned(poisoned) => poisoned,
                process_task::sync::TryLockError::WouldBlock => panic!("the bank's door is shut for ever"),
            })));
        }
    }
    bank.closing.store(true, Relaxed);
    for process in staff {
        process.join().expect("what is left finds nothing wrong");
    }
    drop(bank.checked(bank.accounts.lock()));
    let [done, undone, waited] = [&bank.done, &bank.undone, &bank.waited].map(|count| count.load(Relaxed));
    println!("{killed} killed, {done} transfers, {undone} undone, {waited} waits");
}
