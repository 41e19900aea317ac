# What this is: lines of bench_cuda as text. Usage: awk -f value.awk -f kernels.awk OUTPUT
/"copy_gb_per_s":/ {
  printf "%-54s %9s    %8.0f GB/s (cudaMemcpy %.0f, own kernel %.0f)\n", "copy", "", value("copy_gb_per_s"), \
    value("cudamemcpy_gb_per_s"), value("own_copy_gb_per_s")
}
/"share_of_copy":/ {
  printf "%-54s %9.3f ms %8.0f GB/s %6.2f of copy%s\n", value("family") ": " value("name"), value("ms"), value("gb_per_s"), \
    value("share_of_copy"), value("share_of_copy") + 0 < 0.8 ? "  *" : ""
}
/"tflop_per_s":/ {
  printf "%-54s %9.3f ms %8.1f TFLOP/s\n", value("family") ": " value("name"), value("ms"), value("tflop_per_s")
}
/"error":/ { printf "%-54s %s\n", value("family") ": " value("name"), value("error") }
