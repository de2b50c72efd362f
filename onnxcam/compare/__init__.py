"""Two models on the same images: do they give the same answer, for the same reason?"""
