//! Managers: objects that live in one process and are used from many.

mod builder;
mod call_handle;
mod handle;
pub(crate) mod instance;
mod owner;
mod proxy;
pub(crate) mod scope;

pub use self::builder::ManagerBuilder;
pub use self::call_handle::CallHandle;
pub use self::handle::ManagerHandle;
pub use self::owner::Manager;
pub use self::proxy::Proxy;
