"""The corpus job: images in object storage -> manifest -> fetch, decode, annotate -> Parquet -> verify -> commit."""
