//! An object with a process of its own: any process may call it, and no two calls of `&mut self` meet.
//!
//! Run it with `cargo run --example actor`. It prints:
//!
//! ```text
//! the balance is 0 after 400 payments of 4 processes
//! an account of 5 cannot pay 7
//! the balance is still 5
//! ```

use process_task::{Manager, process_object, process_task};

struct Account(i64);

#[process_object]
impl Account {
    pub(crate) fn new(balance: i64) -> Self {
        Self(balance)
    }

    pub(crate) fn balance(&self) -> i64 {
        self.0
    }

    pub(crate) fn pay(&mut self, amount: i64) -> Result<(), String> {
        if amount > self.0 {
            return Err(format!("an account of {} cannot pay {amount}", self.0));
        }
        self.0 -= amount;
        Ok(())
    }
}

#[process_task]
fn pay_often(account: AccountProxy, times: u32) {
    for _ in 0..times {
        account.pay(1).unwrap().unwrap();
    }
}

fn main() -> process_task::Result<()> {
    let manager = Manager::start()?;
    let account = AccountProxy::new(&manager, 400)?;
    for payer in [(); 4].map(|()| pay_often.spawn(account.clone(), 100)) {
        payer.join()?;
    }
    println!("the balance is {} after 400 payments of 4 processes", account.balance()?);
    let account = AccountProxy::new(&manager, 5)?;
    if let Err(why) = account.pay(7)? {
        println!("{why}");
    }
    println!("the balance is still {}", account.balance()?);
    Ok(())
}
