//! A program with two versions of process-task, as it gets them by way of two dependencies. Each one's tasks use the other's.

/// The tasks of one version, and what a program expects of it.
macro_rules! version {
    ($version:ident, $other:ident) => {
        mod $version {
            use $version::{ErrorKind, Pool, ProcessBuilder, StartMethod, process_task};

            #[process_task(crate = $version)]
            fn square(x: u64) -> u64 {
                x * x
            }

            #[process_task(crate = $version)]
            fn marks() -> Vec<String> {
                let names = std::env::vars_os().map(|(name, _)| name.to_string_lossy().into_owned());
                names.filter(|name| name.starts_with("PROCESS_TASK_BOOT")).collect()
            }

            #[process_task(crate = $version)]
            fn abort() {
                std::process::abort();
            }

            #[process_task(crate = $version)]
            fn use_the_other() {
                crate::$other::transcript(false);
            }

            pub(crate) fn transcript(nested: bool) {
                for method in [StartMethod::ForkServer, StartMethod::Exec] {
                    let mut builder = ProcessBuilder::new();
                    builder.start_method(method);
                    assert_eq!(builder.spawn(square, 10).unwrap().join().unwrap(), 100);
                    assert!(builder.spawn(marks, ()).unwrap().join().unwrap().is_empty());
                    let error = builder.spawn(abort, ()).unwrap().join().unwrap_err();
                    assert!(matches!(error.kind(), ErrorKind::Killed { signal: 6, .. }), "{error}");
                    let pool = Pool::builder().workers(2).start_method(method).build().unwrap();
                    assert_eq!(pool.map(square, 0..4).unwrap(), [0, 1, 4, 9]);
                    if nested {
                        builder.spawn(use_the_other, ()).unwrap().join().unwrap();
                        pool.call(use_the_other, ()).unwrap();
                    }
                }
                if nested {
                    println!(stringify!($version));
                }
            }
        }
    };
}

version!(ours, other);
version!(other, ours);

fn main() {
    ours::transcript(true);
    other::transcript(true);
    // At the same time.
    std::thread::scope(|scope| {
        scope.spawn(|| ours::transcript(true));
        scope.spawn(|| other::transcript(false));
    });
}
