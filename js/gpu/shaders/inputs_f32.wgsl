// The inputs of a product as they are: `exact`. inputs_int8.wgsl has the other way.

fn prepare_inputs(lane: u32, token: u32) {}
