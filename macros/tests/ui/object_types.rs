//! Parameters and results that cannot cross.
use process_task::process_object;

struct Names(Vec<String>);

#[process_object]
impl Names {
    pub fn first(&self) -> &str {
        &self.0[0]
    }

    pub fn named<'a>(&'a self) -> Option<&'a String> {
        self.0.first()
    }

    pub fn forever(&self) -> &'static str {
        ""
    }

    pub fn each(&self) -> impl Iterator<Item = usize> {
        self.0.iter().map(String::len)
    }

    pub fn fill(&mut self, into: &mut Vec<String>) {
        into.append(&mut self.0);
    }

    pub fn visit(&self, with: impl Fn(&str)) {
        self.0.iter().for_each(|name| with(name));
    }

    pub fn keep(&mut self, name: &'static str) {
        self.0.push(name.to_owned());
    }

    pub fn never(&self) -> ! {
        panic!()
    }

    pub fn many(&self, _: u8, _: u8, _: u8, _: u8, _: u8, _: u8, _: u8, _: u8, _: u8, _: u8, _: u8, _: u8, _: u8) {}

    pub fn conditional(&self, #[cfg(all())] more: u8) -> u8 {
        more
    }
}

fn main() {}
