mod hosts;
mod lab;
mod oracle;
mod readme;
