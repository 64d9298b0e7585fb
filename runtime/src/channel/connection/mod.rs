//! Connections: two typed ends of a socket, in whatever processes they are.
//!
//! Owns: [`Connection`], and what carries its messages. Runs in: any process.
//! Never: lets a message arrive in part, or makes a process wait for a dead one.
//!
//! # One message
//!
//! | # | sender | receiver |
//! |---|---|---|
//! | 1 | encodes it: into memory of its thread, or, from 32 KiB on, into a [parcel] | |
//! | 2 | sends one packet: the message, or the parcel's descriptor; with its handles beside it | |
//! | 3 | | receives the packet, which is there as a whole or not at all (`SOCK_SEQPACKET`) |
//! | 4 | | decodes it, from memory of its thread, or from the parcel as it lies there |
//! | 5 | | of a parcel: gives it back, and wakes a sender that waits for one |
//!
//! Nothing else is shared: no lock, no count, no name in a file system. So there is nothing that a death could leave
//! behind, but for a parcel, and [its own table](parcel) says which process may write to that.
//!
//! # What a death costs
//!
//! The tests are in `tests/connection/deaths.rs`. Another file that a row names holds the tests that stand behind it, there and in
//! the rows below.
//!
//! | what dies, or fails | it costs | shown by |
//! |---|---|---|
//! | the sender, before 2 | that message; those before arrive, then the end | `a_sender_killed_at_any_moment_costs_what_it_had_not_sent` |
//! | the sender, in 1, of a parcel | that message, of which no part arrives | `process_killed_inside_a_very_long_send_leaves_no_part` |
//! | the sender, after 2 | nothing: the packet is the kernel's, with the parcel | `a_sender_killed_at_any_moment_costs_what_it_had_not_sent` |
//! | the receiver, at any moment | what it had not received; the sender gets its next message back | `a_receiver_killed_at_any_moment_is_the_end_for_the_sender` |
//! | the receiver, while the sender waits for room | likewise; the sender waits no longer | `a_sender_that_waits_for_room_hears_of_the_receivers_death` |
//! | the receiver, in 4, where others have the same end | that message, and after a second the sender's use of its parcel | `readers_that_die_reading_do_not_silence_the_sender` |
//! | a process that was to get an end, before it did | that end: it is closed with the packet that held it | `an_end_on_its_way_to_a_dead_process_is_closed` |
//! | one that had sent, and not read everything | what it had not read; all that it sent arrives | `what_a_dead_process_sent_arrives_though_it_left_much_unread` |
//! | a process that got an end as an argument | as above, at once, though the caller has a copy | `a_child_hears_of_the_death_of_another` |
//! | none: the other side is stopped | time | `a_stopped_process_costs_time_only` |
//! | none: decoding panics or refuses, in 4 | that message; its parcel is given back | `a_reader_that_panics_while_it_decodes_gives_the_memory_back`, `tests/connection/connections.rs`: `what_cannot_be_decoded_costs_itself_only` |
//! | none: the receiver has no descriptors left, in 3 | messages that need one, each an error in words | `tests/connection/limits.rs`: `a_full_table_of_descriptors_costs_the_messages_that_need_one` |
//! | none: the sender has none left, in 1 | the message comes back, if it is long | `a_sender_without_descriptors_gets_its_message_back` |
//! | none: this user has as many descriptors on their way as may be, in 2 | time, or after a second the message comes back | `sender_waits_while_too_many_descriptors_are_in_flight` |
//! | none: a host program calls `fork()` | nothing: its copy has memory of its own for what is long | `a_host_that_forks_shares_no_memory_with_its_copy` |
//! | none: what comes was not sent by us | that packet | `tests/hostile/connections.rs` |
//!
//! A task that drops an end while its call goes on is not heard of before the call is answered: the caller has a copy of what
//! it gave, since it may have to give it to another process (`a_drop_in_the_middle_of_a_call_is_heard_when_the_call_ends`).
//!
//! # What is believed
//!
//! Of a packet: nothing but what the kernel says of it. Of a parcel: that it is not written to while it is read, which is
//! how [trusted](crate#what-is-trusted) processes behave; that its size is fixed, that all of it is there, and that the
//! message lies inside, is checked.

mod end;
mod future;
mod iter;
mod parcel;
mod scratch;
mod seqpacket;
pub(crate) mod transport;
mod wait;

pub use self::end::{Connection, Receiver, Sender, one_way, pipe};
pub(in crate::channel) use self::future::SocketWatch;
pub use self::iter::ConnectionIter;
pub use self::wait::wait_readable;
