//! What several handles of queues do alike: sending, receiving, closing, being a handle.
//!
//! Owns: the methods, as macros, for each handle has its own type. Runs in: any process that has one.

/// What puts.
macro_rules! puts {
    ($Type:ident) => {
        impl<T: Message> $Type<T> {
            /// Sends an item, waiting for room as long as it takes.
            ///
            /// # Errors
            /// The queue is as it was, and the item is inside the error.
            /// - [`Disconnected`](SendError::Disconnected): the queue is closed, or every receiver is gone.
            /// - [`Failed`](SendError::Failed): the item [cannot be encoded](crate::ErrorKind::CannotEncode), is
            ///   [longer](crate::ErrorKind::TooLong) than all that the queue may hold, or there is no memory for it.
            ///
            /// # If the other process dies
            /// Returns `Disconnected` within a tenth of a second if it had the last receiver.
            #[doc(alias = "put")]
            #[inline]
            pub fn send(&self, item: T) -> std::result::Result<(), SendError<T>> {
                self.core.put(item, Deadline::Never).map_err(TrySendError::without_limit)
            }

            /// Sends an item, if there is room.
            ///
            /// # Errors
            /// As [`send`](Self::send), and [`Full`](TrySendError::Full).
            ///
            /// # If the other process dies
            /// As with [`send`](Self::send).
            #[doc(alias("put_nowait", "full"))]
            #[inline]
            pub fn try_send(&self, item: T) -> std::result::Result<(), TrySendError<T>> {
                self.core.put(item, Deadline::Now)
            }

            /// Sends an item, waiting for room for `timeout` at most.
            ///
            /// # Errors
            /// As [`send`](Self::send), and [`Timeout`](SendTimeoutError::Timeout).
            ///
            /// # If the other process dies
            /// As with [`send`](Self::send).
            pub fn send_timeout(&self, item: T, timeout: Duration) -> std::result::Result<(), SendTimeoutError<T>> {
                self.core.put(item, Deadline::after(timeout)).map_err(TrySendError::in_time)
            }
        }
    };
}
pub(super) use puts;

/// What gets.
macro_rules! gets {
    ($Type:ident) => {
        impl<T: Message> $Type<T> {
            /// Receives the first item, waiting for one as long as it takes.
            ///
            /// # Errors
            /// - [`Disconnected`](RecvError::Disconnected): the queue is closed, or every sender is gone, and nothing is left.
            /// - [`Failed`](RecvError::Failed): the item [cannot be decoded](crate::ErrorKind::CannotDecode), and is gone; or
            ///   the kernel refuses what is needed, such as room for a descriptor, and the item is still there; or the queue's
            ///   memory was written over.
            ///
            /// # If the other process dies
            /// Returns `Disconnected` within a tenth of a second if it had the last sender. The owner of a whole queue is a
            /// sender, too, and so may wait for ever when all others are gone.
            #[doc(alias = "get")]
            #[inline]
            pub fn recv(&self) -> std::result::Result<T, RecvError> {
                self.core.get(Deadline::Never).map(|(item, _)| item).map_err(TryRecvError::without_limit)
            }

            /// Receives the first item, if there is one.
            ///
            /// # Errors
            /// As [`recv`](Self::recv), and [`Empty`](TryRecvError::Empty).
            ///
            /// # If the other process dies
            /// As with [`recv`](Self::recv).
            #[doc(alias = "get_nowait")]
            #[inline]
            pub fn try_recv(&self) -> std::result::Result<T, TryRecvError> {
                self.core.get(Deadline::Now).map(|(item, _)| item)
            }

            /// Receives the first item, waiting for one for `timeout` at most.
            ///
            /// # Errors
            /// As [`recv`](Self::recv), and [`Timeout`](RecvTimeoutError::Timeout).
            ///
            /// # If the other process dies
            /// As with [`recv`](Self::recv).
            pub fn recv_timeout(&self, timeout: Duration) -> std::result::Result<T, RecvTimeoutError> {
                self.core.get(Deadline::after(timeout)).map(|(item, _)| item).map_err(TryRecvError::in_time)
            }
        }
    };
}
pub(super) use gets;

/// What all handles of queues do; `$ends`: whether they put, and whether they get.
macro_rules! handle {
    ($Type:ident of $Queue:ident, $ends:expr, lends: $lends:literal) => {
        impl<T> $Type<T> {
            /// How many items wait to be got. It may be another number by the time that this one is read.
            #[doc(alias = "qsize")]
            #[must_use]
            pub fn len(&self) -> usize {
                self.core.len()
            }

            /// Whether no item waits to be got, at this moment.
            #[doc(alias = "empty")]
            #[must_use]
            pub fn is_empty(&self) -> bool {
                self.len() == 0
            }
        }

        impl<T> Clone for $Type<T> {
            /// Another handle of the same queue.
            fn clone(&self) -> Self {
                Self { core: self.core.again(), items: PhantomData }
            }
        }

        impl<T> PartialEq for $Type<T> {
            /// Whether both are handles of the same queue.
            fn eq(&self, other: &Self) -> bool {
                self.core.is_same(&other.core)
            }
        }

        impl<T> Eq for $Type<T> {}

        impl<T> fmt::Debug for $Type<T> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_struct(stringify!($Type)).field("len", &self.len()).finish_non_exhaustive()
            }
        }

        impl<T> Serialize for $Type<T> {
            fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
                self.core.travelling().map_err(S::Error::custom)?.serialize(serializer)
            }
        }

        impl<'de, T: 'static> Deserialize<'de> for $Type<T> {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
                let travelling = Deserialize::deserialize(deserializer)?;
                let core = QueueCore::arrived::<$Queue<T>>(travelling, $ends, $lends).map_err(D::Error::custom)?;
                Ok(Self { core, items: PhantomData })
            }
        }
    };
}
pub(super) use handle;

/// What can be closed.
macro_rules! closes {
    ($Type:ident) => {
        impl<T> $Type<T> {
            /// Refuses all further items. Those that are there can be received; then receivers get
            /// [`Disconnected`](RecvError::Disconnected).
            ///
            /// # If the other process dies
            /// A process that is killed while it closes the queue has closed it, or has not.
            pub fn close(&self) {
                self.core.close();
            }

            /// Whether the queue was [closed](Self::close).
            #[must_use]
            pub fn is_closed(&self) -> bool {
                self.core.is_closed()
            }
        }
    };
}
pub(super) use closes;
