-- Lets wrk say the percentiles that its own report leaves out, in microseconds.
done = function(_, latency, _)
  for _, share in ipairs({ 50, 99, 99.9 }) do
    io.write(string.format("p%g %d us\n", share, latency:percentile(share)))
  end
end
