//! The setters that the builders of processes and of pools share.
//!
//! Runs in: the parent.

/// The setters, for an `impl` block of a builder with a field `options` of type [`crate::supervisor::SpawnAttributes`].
///
/// `setter` is how a setter takes and gives the builder, and `this` is its `self`. `it` and `its` stand for the process or the
/// worker, `new` for a builder, and `run` for what makes a call of a task called `seen` out of that.
macro_rules! attribute_setters {
    (
        setter: ($($receiver:tt)+) -> $Given:ty, this: $this:ident,
        it: $it:literal, its: $its:literal, new: $new:literal, run: $run:literal
    ) => {
        #[doc = concat!("Sets a variable of ", $its, " environment.")]
        ///
        /// # Examples
        /// ```
        /// # use process_task::{Manager, Pool, ProcessBuilder, process_task};
        /// #[process_task]
        /// fn seen() -> Option<String> { std::env::var("MODE").ok() }
        ///
        #[doc = concat!("assert_eq!(", $new, ".env(\"MODE\", \"quick\").", $run, ", Some(\"quick\".to_owned()));")]
        /// # process_task::Result::Ok(())
        /// ```
        pub fn env(
            $($receiver)+,
            key: impl Into<std::ffi::OsString>,
            value: impl Into<std::ffi::OsString>,
        ) -> $Given {
            $this.options.env.push((key.into(), Some(value.into())));
            $this
        }

        #[doc = concat!("Removes a variable from ", $its, " environment.")]
        ///
        /// # Examples
        /// ```
        /// # use process_task::{Manager, Pool, ProcessBuilder, process_task};
        /// #[process_task]
        /// fn seen() -> Option<String> { std::env::var("PATH").ok() }
        ///
        #[doc = concat!("assert_eq!(", $new, ".env_remove(\"PATH\").", $run, ", None);")]
        /// # process_task::Result::Ok(())
        /// ```
        pub fn env_remove($($receiver)+, key: impl Into<std::ffi::OsString>) -> $Given {
            $this.options.env.push((key.into(), None));
            $this
        }

        /// Starts from an empty environment, and forgets what [`env`](Self::env) said before.
        ///
        /// # Examples
        /// ```
        /// # use process_task::{Manager, Pool, ProcessBuilder, process_task};
        /// #[process_task]
        /// fn seen() -> usize { std::env::vars_os().count() }
        ///
        #[doc = concat!("assert_eq!(", $new, ".env_clear().env(\"MODE\", \"quick\").", $run, ", 1);")]
        /// # process_task::Result::Ok(())
        /// ```
        pub fn env_clear($($receiver)+) -> $Given {
            $this.options.env.clear();
            $this.options.clear_env = true;
            $this
        }

        #[doc = concat!("The directory ", $it, " works in.")]
        ///
        /// # Examples
        /// ```
        /// # use process_task::{Manager, Pool, ProcessBuilder, process_task};
        /// # use std::path::{Path, PathBuf};
        /// #[process_task]
        /// fn seen() -> PathBuf { std::env::current_dir().unwrap() }
        ///
        #[doc = concat!("assert_eq!(", $new, ".current_dir(\"/\").", $run, ", Path::new(\"/\"));")]
        /// # process_task::Result::Ok(())
        /// ```
        pub fn current_dir($($receiver)+, path: impl Into<std::path::PathBuf>) -> $Given {
            $this.options.directory = Some(path.into());
            $this
        }

        #[doc = concat!("The most address space ", $it, " may use, in bytes (`RLIMIT_AS`). Beyond it, allocation fails")]
        /// and the process aborts; the error names the limit. It counts what is reserved, not what is used. A limit below what the
        /// program maps before it runs anything, some MiB, is refused.
        ///
        /// # Examples
        /// ```
        /// # use process_task::{Manager, Pool, ProcessBuilder, process_task};
        /// #[process_task]
        /// fn seen() -> bool { Vec::<u8>::new().try_reserve(2 << 30).is_ok() }
        ///
        #[doc = concat!("assert!(!", $new, ".memory_limit(1 << 30).", $run, ");")]
        /// # process_task::Result::Ok(())
        /// ```
        pub fn memory_limit($($receiver)+, bytes: u64) -> $Given {
            $this.options.memory = Some(bytes);
            $this
        }

        #[doc = concat!("The most processor time ", $it, " may use in its life (`RLIMIT_CPU`).")]
        /// `time` is rounded up to whole seconds, and is one second at least. Then it gets SIGXCPU, and a second later SIGKILL.
        ///
        /// # Examples
        /// ```
        /// # use std::time::Duration;
        /// # use process_task::{Manager, Pool, ProcessBuilder, process_task};
        /// #[process_task]
        /// fn seen() -> u32 { (0..1000).sum() }
        ///
        #[doc = concat!("assert_eq!(", $new, ".cpu_time_limit(Duration::from_secs(60)).", $run, ", 499_500);")]
        /// # process_task::Result::Ok(())
        /// ```
        pub fn cpu_time_limit($($receiver)+, time: std::time::Duration) -> $Given {
            $this.options.cpu_time = Some(time);
            $this
        }

        #[doc = concat!("One more than the highest descriptor ", $it, " may open (`RLIMIT_NOFILE`), at least 1.")]
        ///
        /// # Examples
        /// ```
        /// # use process_task::{Manager, Pool, ProcessBuilder, process_task};
        /// # use std::fs::File;
        /// #[process_task]
        /// fn seen() -> bool {
        ///     let files: Vec<_> = (0..64).map(|_| File::open("/dev/null")).collect();
        ///     files.iter().all(Result::is_ok)
        /// }
        ///
        #[doc = concat!("assert!(!", $new, ".open_files_limit(64).", $run, ");")]
        /// # process_task::Result::Ok(())
        /// ```
        pub fn open_files_limit($($receiver)+, count: u64) -> $Given {
            $this.options.open_files = Some(count);
            $this
        }

        #[doc = concat!("How nice ", $it, " is, -20 to 19; of another number the kernel takes the nearest of these.")]
        /// Less than this process's own needs a privilege.
        ///
        /// # Examples
        /// ```
        /// # use process_task::{Manager, Pool, ProcessBuilder, process_task};
        /// #[process_task]
        /// fn seen() -> Option<String> {
        ///     let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
        ///     Some(stat.rsplit_once(')')?.1.split_whitespace().nth(16)?.to_owned())
        /// }
        ///
        #[doc = concat!("assert_eq!(", $new, ".nice(19).", $run, ".as_deref(), Some(\"19\"));")]
        /// # process_task::Result::Ok(())
        /// ```
        pub fn nice($($receiver)+, niceness: i32) -> $Given {
            $this.options.niceness = Some(niceness);
            $this
        }

        #[doc = concat!("The processors ", $it, " may run on, by number: at least one, and all of them there.")]
        ///
        /// # Examples
        /// ```
        /// # use process_task::{Manager, Pool, ProcessBuilder, process_task};
        /// #[process_task]
        /// fn seen() -> usize { process_task::available_parallelism() }
        ///
        /// # let status = std::fs::read_to_string("/proc/self/status").unwrap();
        /// # let first = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).unwrap();
        /// # let first: usize = first.trim().split([',', '-']).next().unwrap().parse().unwrap();
        #[doc = concat!("assert_eq!(", $new, ".cpus([first]).", $run, ", 1);")]
        /// # process_task::Result::Ok(())
        /// ```
        pub fn cpus($($receiver)+, cpus: impl IntoIterator<Item = usize>) -> $Given {
            $this.options.cpus = Some(cpus.into_iter().collect());
            $this
        }

        #[doc = concat!("Lets ", $it, " ignore SIGTERM, SIGINT, SIGQUIT and SIGHUP, and so finish what it runs.")]
        ///
        /// Supervisors, containers and terminals send these to every process of a program, not to the program alone. One that
        /// answers them itself, say by [`Pool::shutdown`](crate::Pool::shutdown) with
        /// [`ShutdownMode::Finish`](crate::ShutdownMode::Finish), loses no call then. Processes that a task starts, by this
        /// crate or by [`std::process::Command`], ignore them too, unless they say otherwise. SIGKILL ends everything as
        /// ever, and so do time-outs, cancellation, [`Pool::kill`](crate::Pool::kill), and the end of this program; a
        /// [termination grace](crate::PoolBuilder::termination_grace) is waited for in vain, unless a task handles SIGTERM.
        ///
        /// # Examples
        /// ```
        /// # use process_task::{Manager, Pool, ProcessBuilder, process_task};
        /// #[process_task]
        /// fn seen() -> bool {
        ///     let status = std::fs::read_to_string("/proc/self/status").unwrap();
        ///     let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:\t")).unwrap();
        ///     u64::from_str_radix(ignored, 16).unwrap() & 1 << (15 - 1) != 0       // SIGTERM is number 15
        /// }
        ///
        #[doc = concat!("assert!(", $new, ".ignore_termination_signals().", $run, ");")]
        /// # process_task::Result::Ok(())
        /// ```
        pub fn ignore_termination_signals($($receiver)+) -> $Given {
            $this.options.ignores_termination = true;
            $this
        }
    };
}

pub(crate) use attribute_setters;
