"""Files and tables → documents → tokens → shards → batches, a pure function at each step."""
