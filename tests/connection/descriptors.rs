//! What an open file that travels promises: its receiver has the same open file, through whatever it came, and no other
//! keeps it.
//!
//! Runs in: the test process; its tasks write and read in children. Never: hands over what the test could not see closed.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsFd as _;

use crate::support::process_builder as builder;
use crate::support::scratch::Scratch;
use crate::support::shared_counter::{Stage, reach, stage, until, until_killed};
use nix::sys::socket::{MsgFlags, send};
use process_task::channel::{Descriptor, Receiver, RecvError, Sender, one_way};
use process_task::{ErrorKind, Pool, StartMethod, process_task};

under_every_start_method! {
    a_child_writes_where_its_parent_reads,
    a_file_is_a_result_and_goes_through_pools,
    files_go_through_connections,
    a_socket_is_answered_by_another_process,
    one_that_does_not_come_is_an_error,
    a_process_that_dies_closes_what_it_had,
}

#[process_task]
fn write_to(file: Descriptor, text: &str) {
    File::from(file.into_owned().expect("a descriptor"))
        .write_all(text.as_bytes())
        .expect("a file that can be written");
}

fn a_child_writes_where_its_parent_reads(method: StartMethod) {
    let scratch = Scratch::new();
    let mut file =
        File::options().create(true).truncate(true).read(true).write(true).open(scratch.file("text")).unwrap();
    let descriptor = Descriptor::new(file.try_clone().unwrap());
    for text in ["one ", "two ", "three"] {
        builder(method).spawn(write_to, (descriptor.clone(), text)).unwrap().join().unwrap();
    }
    // They all had one place in it, which is ours, too.
    assert_eq!(file.stream_position().unwrap(), 13);
    file.seek(SeekFrom::Start(0)).unwrap();
    let mut text = String::new();
    file.read_to_string(&mut text).unwrap();
    assert_eq!(text, "one two three");
}

#[process_task]
fn open(path: &str, text: &str) -> (Descriptor, Option<Descriptor>) {
    let mut file = File::create_new(path).expect("a new file");
    file.write_all(text.as_bytes()).expect("a file that can be written");
    (Descriptor::new(File::open(path).expect("that file")), None)
}

#[process_task]
fn length(file: Descriptor) -> usize {
    let mut file = File::from(file.into_owned().expect("a descriptor"));
    file.read_to_string(&mut String::new()).expect("a file that can be read")
}

fn a_file_is_a_result_and_goes_through_pools(method: StartMethod) {
    let scratch = Scratch::new();
    let pool = Pool::builder().workers(2).start_method(method).build().unwrap();
    let paths: Vec<_> = (0..5).map(|n| scratch.file(&n.to_string())).collect();
    let texts = ["", "a", "bb", "ccc", "dddd"];
    let calls: Vec<_> = paths.iter().zip(texts).map(|(path, text)| pool.submit(open, (path.as_str(), text))).collect();
    let files: Vec<_> = calls.into_iter().map(|call| call.join().unwrap().0).collect();
    assert_eq!(pool.map(length, files).unwrap(), [0, 1, 2, 3, 4]);
}

#[process_task]
fn read_all(files: Receiver<(u32, Vec<Descriptor>)>, out: Sender<(u32, String)>) {
    for message in &files {
        let (number, files) = message.expect("files");
        let mut text = String::new();
        for file in files {
            File::from(file.into_owned().expect("a descriptor")).read_to_string(&mut text).expect("text");
        }
        out.send((number, text)).expect("the other end is there");
    }
}

fn files_go_through_connections(method: StartMethod) {
    let ((files, theirs), (out, texts)) = (one_way().unwrap(), one_way().unwrap());
    let process = builder(method).spawn(read_all, (theirs, out)).unwrap();
    for number in 0..20 {
        let pipes: Vec<_> = (0..number % 4).map(|_| std::io::pipe().unwrap()).collect();
        let (readers, writers): (Vec<_>, Vec<_>) = pipes.into_iter().unzip();
        files.send((number, readers.into_iter().map(Descriptor::new).collect())).unwrap();
        // It reads to the end, which comes only when no other process has the writing side.
        for mut writer in writers {
            writer.write_all(b"abc").unwrap();
        }
        assert_eq!(texts.recv().unwrap(), (number, "abc".repeat(number as usize % 4)));
    }
    drop(files);
    process.join().unwrap();
}

#[process_task]
fn answer(stream: Descriptor) {
    let mut stream = TcpStream::from(stream.into_owned().expect("a descriptor"));
    let mut question = [0; 4];
    stream.read_exact(&mut question).expect("a question");
    stream.write_all(&question.map(|byte| byte + 1)).expect("the peer waits for the answer");
}

fn a_socket_is_answered_by_another_process(method: StartMethod) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let mut mine = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let process = builder(method).spawn(answer, Descriptor::new(listener.accept().unwrap().0)).unwrap();
    mine.write_all(&[1, 2, 3, 4]).unwrap();
    process.join().unwrap();
    let mut heard = Vec::new();
    mine.read_to_end(&mut heard).unwrap();
    assert_eq!(heard, [2, 3, 4, 5]);
}

fn one_that_does_not_come_is_an_error(_: StartMethod) {
    let (sender, receiver) = one_way::<Descriptor>().unwrap();
    let raw = std::os::fd::AsRawFd::as_raw_fd(&sender.as_fd());
    // A message that names one, without any beside it.
    let forged = [&b"pt whole"[..], &4u64.to_ne_bytes(), &[0; 4]].concat();
    assert_eq!(send(raw, &forged, MsgFlags::empty()), Ok(20));
    assert!(
        matches!(receiver.recv(), Err(RecvError::Failed(error)) if matches!(error.kind(), ErrorKind::CannotDecode { .. }))
    );
    sender.send(Descriptor::new(File::open("/dev/null").unwrap())).unwrap();
    receiver.recv().unwrap();
}

#[process_task]
fn hold(_file: Descriptor, stage: &Stage) {
    reach(stage);
    until_killed();
}

fn a_process_that_dies_closes_what_it_had(method: StartMethod) {
    let (mut reader, writer) = std::io::pipe().unwrap();
    let stage = stage();
    let process = builder(method).spawn(hold, (Descriptor::new(writer), &stage)).unwrap();
    until(&stage, 1);
    process.kill().unwrap();
    // To its end, before a thread asks how the process ended.
    assert_eq!(reader.read_to_end(&mut Vec::new()).unwrap(), 0);
    assert!(process.join().is_err());
}
